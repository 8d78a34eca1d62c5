"""Where control enters a motion UNet, and what a side network hands over there.

Control is added to the encoder's skips ("down_0", "down_1", ... in the order in which the encoder
makes them) and after the middle block ("mid"), the two places where diffusers takes residuals.

Shapes: B batch, F frames, C channels of the point, h w its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MID = "mid"


@dataclass(frozen=True)
class InjectionPoint:
    """One place where a residual is added."""

    name: str
    """"down_0", "down_1", ... or "mid"."""
    channels: int
    """C of the activation there."""
    halvings: int
    """Stride-2 steps from the latent's cells to this point's; each halves and rounds up."""


@dataclass(frozen=True)
class SideResiduals:
    """Residuals by injection point; a point without an entry receives nothing."""

    points: Mapping[str, Tensor]
    """Name -> (B*F, C, h, w), frames of a clip adjacent."""

    def scaled(self, scale: float) -> SideResiduals:
        """All residuals times the control scale."""
        return SideResiduals({name: scale * value for name, value in self.points.items()})

    def to(self, dtype: torch.dtype) -> SideResiduals:
        """Residuals in the dtype of the activations that they are added to."""
        return SideResiduals({name: value.to(dtype) for name, value in self.points.items()})


def injection_points(unet_config: Mapping[str, Any]) -> dict[str, InjectionPoint]:
    """All injection points of the `UNetMotionModel` with this configuration, by name, in order."""
    widths = unet_config["block_out_channels"]
    layers = unet_config["layers_per_block"]
    layers = [layers] * len(widths) if isinstance(layers, int) else layers
    last = len(widths) - 1
    shapes = [(widths[0], 0)]
    for level, width in enumerate(widths):
        shapes += [(width, level)] * layers[level]
        shapes += [(width, level + 1)] * (level < last)
    named = {f"down_{index}": shape for index, shape in enumerate(shapes)} | {MID: shapes[-1]}
    return {name: InjectionPoint(name, *shape) for name, shape in named.items()}
