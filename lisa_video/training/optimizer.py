"""What moves the trained weights, and how fast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lisa_video.training.config import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, modules: Sequence[nn.Module], lr_scales: Sequence[float]
) -> torch.optim.Optimizer:
    """One parameter group per module, in their order; each remembers its `lr_scale`."""
    groups = [
        {"params": list(module.parameters()), "lr_scale": scale}
        for module, scale in zip(modules, lr_scales, strict=True)
    ]
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group `rate` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Of the update that makes step `step`, counted from 1: linear warm-up, then constant."""
    return config.lr * min(1.0, step / max(1, config.warmup_steps))
