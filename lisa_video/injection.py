"""Where control enters a main network, and what a side network hands over there.

In a motion UNet control is added to the encoder's skips ("down_0", "down_1", ... in the order in
which the encoder makes them) and after the middle block ("mid"), the two places where diffusers
takes residuals. In a video transformer it is added to the tokens after a block ("block_0", ...).

Shapes: B batch, F frames, C channels of the point, h w its cells, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lisa_video.errors import UserError

MID = "mid"

Injection = Literal["all"] | Mapping[str, int] | Sequence[str | int]
"""A choice of injection points: all, {"stride": k}, {"even": n}, or a list of names or indices."""


@dataclass(frozen=True)
class InjectionPoint:
    """One place where a residual is added."""

    name: str
    """"down_0", "down_1", ... or "mid"; "block_0", "block_1", ..."""
    channels: int
    """C of the activation there."""
    halvings: int
    """Stride-2 steps from the latent's cells to this point's; each halves and rounds up."""
    tokens: bool = False
    """The activation is tokens (B, N, C) and not cells (B*F, C, h, w)."""


@dataclass(frozen=True)
class SideResiduals:
    """Residuals by injection point; a point without an entry receives nothing."""

    points: Mapping[str, Tensor]
    """Name -> (B*F, C, h, w), frames of a clip adjacent, or tokens (B, N, C)."""

    def scaled(self, scale: float | Tensor) -> SideResiduals:
        """All residuals times the control scale, or times that of each latent frame (T,)."""
        return SideResiduals(
            {name: _by_frame(scale, value) * value for name, value in self.points.items()}
        )

    def plus(self, other: SideResiduals) -> SideResiduals:
        """The sum of both; a point that one of them lacks is the other's."""
        points = dict(self.points)
        for name, value in other.points.items():
            points[name] = points[name] + value if name in points else value
        return SideResiduals(points)

    def repeated(self, times: int) -> SideResiduals:
        """For so many runs of the same clips, one after the other."""
        return SideResiduals(
            {
                name: value.repeat(times, *[1] * (value.ndim - 1))
                for name, value in self.points.items()
            }
        )

    def to(self, dtype: torch.dtype) -> SideResiduals:
        """Residuals in the dtype of the activations that they are added to."""
        return SideResiduals({name: value.to(dtype) for name, value in self.points.items()})


def clip_rows(values: Tensor, clips: Tensor, batch: int) -> Tensor:
    """The rows of `clips`, long (P,), of an activation: (B*F, ...) -> (P*F, ...), (B, ...) -> (P, ...)."""
    return values.unflatten(0, (batch, -1))[clips].flatten(0, 1)


def _by_frame(scale: float | Tensor, residual: Tensor) -> float | Tensor:
    """The scales (T,) of latent frames as factors of a residual, frames of a clip adjacent."""
    if not isinstance(scale, Tensor):
        return scale
    scale = scale.to(residual)
    if residual.ndim == 4:
        return scale.repeat(len(residual) // len(scale))[:, None, None, None]
    return scale.repeat_interleave(residual.shape[1] // len(scale))[:, None]


def unet_points(unet_config: Mapping[str, Any]) -> dict[str, InjectionPoint]:
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


def block_points(blocks: int, width: int, patch_size: int) -> dict[str, InjectionPoint]:
    """The injection points of a transformer, one after each block, by name, in order.

    `patch_size`, a power of 2, counts the latent cells along each side of a token's patch.
    """
    halvings = patch_size.bit_length() - 1
    assert patch_size == 1 << halvings, patch_size
    return {
        f"block_{index}": InjectionPoint(f"block_{index}", width, halvings, tokens=True)
        for index in range(blocks)
    }


def chosen_points(
    injection: Injection, known: Mapping[str, InjectionPoint], key: str = "injection"
) -> dict[str, InjectionPoint]:
    """The injection points that a choice names, in the order of `known`.

    `{"stride": k}` takes every k-th from the first, `{"even": n}` the last of each of n equal
    groups, so that all before the first of them can be shared with the prior prediction; a list
    holds names or indices into `known`. Raises UserError where a choice names none, or one that
    does not exist.
    """
    names = list(known)
    if isinstance(injection, str):
        if injection != "all":
            raise UserError(f"side network: {key}={injection}: give all, a rule or a list")
        chosen = names
    elif isinstance(injection, Mapping):
        chosen = _by_rule(injection, names, key)
    else:
        chosen = [_name(item, names) for item in injection]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UserError(
            f"side network: {key} names {', '.join(unknown)}, but there is {_all(names)}"
        )
    if not chosen:
        raise UserError(f"side network: {key} names no point, there is {_all(names)}")
    return {name: point for name, point in known.items() if name in chosen}


def _by_rule(rule: Mapping[str, int], names: Sequence[str], key: str) -> list[str]:
    match list(rule.items()):
        case [("stride", stride)] if 1 <= stride <= len(names):
            return list(names[::stride])
        case [("even", count)] if 1 <= count <= len(names):
            return [names[(index + 1) * len(names) // count - 1] for index in range(count)]
    raise UserError(
        f"side network: {key}={dict(rule)}: give one of stride and even, between 1 and {len(names)}"
    )


def _name(item: str | int, names: Sequence[str]) -> str:
    if isinstance(item, str):
        return item
    return names[item] if 0 <= item < len(names) else f"index {item}"


def _all(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names) if len(names) <= 16 else f"{names[0]} to {names[-1]}"
