"""How a run moves its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError

OptimizerKind = Literal["adamw", "adamw_fused", "adamw_8bit", "adafactor"]
Schedule = Literal["constant", "linear", "cosine", "polynomial"]


@dataclass(frozen=True)
class OptimizerConfig:
    """What moves the weights, and how fast: a linear warm-up, then a schedule."""

    kind: OptimizerKind = "adamw"
    """adamw; adamw_fused: the same in one kernel, faster on CUDA; adamw_8bit: both moments in 8
    bits (extra 8bit); adafactor: one moment by rows and columns, none of `betas`, and `lr`
    relative to the size of each tensor's weights."""
    lr: float = 1e-5
    """Learning rate."""
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factors of `lr` for parts of the side network, by pattern over its parameters' dotted names:
    {pose_encoder: 2, motion_modules: 0.1, down_blocks.0.*.to_q: 0.5}. A pattern stands for whole
    parts of a name, anywhere in it, * for anything; factors of all that match are multiplied."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the moment estimates."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    decay_norms: bool = True
    """Also decay vectors, which are biases and the scales of norms."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to `lr`."""
    schedule: Schedule = "constant"
    """How the learning rate goes on after warm-up: it stays, or falls to `min_lr_share` of `lr`
    until `decay_steps`, and stays there."""
    decay_steps: int | None = None
    """Step at which it has fallen; null: `steps`. A finished run with a falling learning rate goes
    on for more steps only where this stays what it was."""
    min_lr_share: float = 0.0
    """Share of `lr` that is left in the end."""
    cycles: int = 1
    """cosine: times that it falls; each but the first starts at `lr` again."""
    power: float = 1.0
    """polynomial: of the share of steps left."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, once per step."""
    gradient_accumulation_steps: int = 1
    """Forward passes per step."""

    def __post_init__(self) -> None:
        positive("optimizer", lr=self.lr, max_grad_norm=self.max_grad_norm, power=self.power)
        positive("optimizer.lr_scales", **self.lr_scales)
        at_least(0, "optimizer", warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        steps = self.gradient_accumulation_steps
        at_least(1, "optimizer", gradient_accumulation_steps=steps, cycles=self.cycles)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={list(self.betas)}: both must lie in [0, 1)")
        if not 0 <= self.min_lr_share <= 1:
            raise UserError(f"optimizer.min_lr_share={self.min_lr_share}: a share lies in [0, 1]")
        for name, used, by in (
            ("cycles", self.cycles != 1, ["cosine"]),
            ("power", self.power != 1, ["polynomial"]),
            ("decay_steps", self.decay_steps is not None, ["linear", "cosine", "polynomial"]),
            ("min_lr_share", self.min_lr_share != 0, ["linear", "cosine", "polynomial"]),
        ):
            if used and self.schedule not in by:
                raise UserError(
                    f"optimizer.{name}={getattr(self, name)}: the {self.schedule} schedule has no "
                    f"use for it; give optimizer.schedule {' or '.join(by)}"
                )

    def falls_until(self, steps: int) -> int | None:
        """Step at which the learning rate of a run of `steps` has fallen; None: it never falls."""
        if self.schedule == "constant":
            return None
        return steps if self.decay_steps is None else self.decay_steps


@dataclass(frozen=True)
class EmaConfig:
    """The average of the trained weights, which is what is saved for use."""

    decay: float = 0.999
    """Decay per step; 0 saves the last weights themselves."""
    warmup: bool = True
    """Let early steps decay faster, by (1 + step) / (10 + step), so that the start is forgotten."""
    sigma_rel: float | None = None
    """Width of a power-function average as a share of the steps so far, such as 0.05 or 0.1
    (Karras et al. 2024); it takes the place of `decay` and `warmup`."""
    every: int = 1
    """Steps between updates, each of which decays as much as that many."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"ema.decay={self.decay}: must lie in [0, 1)")
        at_least(1, "ema", every=self.every)
        if self.sigma_rel is None:
            return
        if not 0 < self.sigma_rel <= 0.28:
            raise UserError(f"ema.sigma_rel={self.sigma_rel}: must lie in (0, 0.28]")
        if not self.decay:
            raise UserError("ema: decay 0 keeps no average, and sigma_rel asks for one; give one")
