"""How a run moves its weights."""

from __future__ import annotations

from dataclasses import dataclass

from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a constant learning rate after a linear warm-up."""

    lr: float = 1e-5
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the moment estimates."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to `lr`."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, once per step."""
    gradient_accumulation_steps: int = 1
    """Forward passes per step."""

    def __post_init__(self) -> None:
        positive("optimizer", lr=self.lr, max_grad_norm=self.max_grad_norm)
        at_least(0, "optimizer", warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        steps = self.gradient_accumulation_steps
        at_least(1, "optimizer", gradient_accumulation_steps=steps)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={list(self.betas)}: both must lie in [0, 1)")


@dataclass(frozen=True)
class EmaConfig:
    """The average of the side network's weights, which is what is saved for use."""

    decay: float = 0.999
    """Decay per step, smaller during the first steps; 0 saves the last weights themselves."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"ema.decay={self.decay}: must lie in [0, 1)")
