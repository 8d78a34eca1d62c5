"""Gradient checkpointing where diffusers has none: what is dropped is computed again, exactly.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174. diffusers recomputes
the blocks of its models, but not the motion modules of a motion UNet, whose activations are the
larger part.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn


class CheckpointedMotion(AnimateDiffTransformer3D):  # type: ignore[misc]
    """A motion module that follows the switch that diffusers sets on modules which have one."""

    gradient_checkpointing = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(partial(super().forward, **kwargs), *args)
        return super().forward(*args, **kwargs)


def make_motion_checkpointable(network: nn.Module) -> None:
    """Let the motion modules of a motion UNet, or of a copy of its parts, follow that switch."""
    for module in network.modules():
        if type(module) is AnimateDiffTransformer3D:
            module.__class__ = CheckpointedMotion
