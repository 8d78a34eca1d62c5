"""What all side networks have in common.

Shapes: B batch, F frames, C channels, h w cells, N tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from typing_extensions import Self

from lisa_video.condition_config import ConditionKind
from lisa_video.errors import UserError
from lisa_video.injection import Injection, InjectionPoint, SideResiduals

if TYPE_CHECKING:
    from lisa_video.backbones.base import VideoBackbone

PoseInit = Literal["zero", "normal"]


@dataclass(frozen=True)
class SideOutput:
    """What one forward of a side network gives."""

    residuals: SideResiduals
    """The outputs of the zero projections, for the backbone."""
    taps: Mapping[str, Tensor]
    """Feature taps, the inputs of zero projections: injection point -> (B*F, C, h, w) or tokens
    (B, N, C)."""


@dataclass(frozen=True)
class TakenOver:
    """What a new side network took over from a network that others have trained."""

    source: str
    """Folder or hub name."""
    taken: Mapping[str, int]
    """Parts of the side network that start from it, with their number of weights."""
    kept: Mapping[str, int]
    """Parts that it has nothing for, which start from the backbone."""
    left_out: Sequence[str]
    """Injection points that it has weights for and the side network no projection."""

    def lines(self) -> list[str]:
        """The same for the user."""
        lines = [
            f"side network: from {self.source}: {_listed(self.taken)}",
            f"side network: from the backbone: {_listed(self.kept)}",
        ]
        if self.left_out:
            points = ", ".join(self.left_out)
            lines.append(f"side network: not taken, as they are no injection points: {points}")
        return lines


class SideNetwork(ModelMixin, ConfigMixin):
    """A trainable network whose zero projections add residuals to one kind of backbone.

    Subclasses name `ModelMixin` as a base again: to load a pipeline's component, diffusers looks
    for the base among the names in its module. They are made by `from_backbone`, and their
    configuration is enough to load them without any backbone at hand. It holds
    `backbone_fingerprint`, that of the backbone they were made for.
    """

    _supports_gradient_checkpointing = True

    injection_points: Mapping[str, InjectionPoint]
    """The backbone's points that have a zero projection, in its order."""
    tap_points: Mapping[str, InjectionPoint]
    """Those of them whose features `forward` hands out; channels are those of the feature."""
    projections: nn.ModuleDict
    """The zero projections, by injection point."""
    taken_over: TakenOver | None = None
    """What it was started from beside the backbone; not saved."""

    @classmethod
    @abstractmethod
    def from_backbone(
        cls,
        backbone: Any,
        *,
        injection: Injection = "all",
        taps: Sequence[str] = (),
        pose_init: PoseInit = "zero",
        condition: ConditionKind = "pose",
        seed: int = 0,
    ) -> Self:
        """A float32 side network on the backbone's device that starts as a copy of its parts."""

    def check_condition(self, kind: ConditionKind) -> None:
        """Raise UserError unless this network is steered by that kind of condition."""
        if self.config.condition != kind:
            raise UserError(
                f"this side network is steered by {self.config.condition}, and not by {kind}; set "
                f"data.condition to {self.config.condition}"
            )

    @apply_forward_hook
    def encode_poses(self, pose_frames: Tensor) -> Tensor:
        """Pose frames (B, F, 3, H, W) in [0, 1] -> what `forward` takes in their place.

        They are the same at every timestep and for every text, so that generation encodes them
        once. This is for calls from outside: hooks that bring the weights surround it.
        """
        return self._encoded(pose_frames)

    @abstractmethod
    def _encoded(self, pose_frames: Tensor) -> Tensor:
        """`encode_poses` within `forward`."""

    def check_backbone(self, backbone: VideoBackbone) -> None:
        """Raise UserError unless `backbone` is the one that this network was built from."""
        wanted = backbone.side_network_class
        if not isinstance(self, wanted):
            raise UserError(
                f"this side network is a {type(self).__name__}, and a backbone of kind "
                f"{backbone.kind} takes a {wanted.__name__}; load the backbone it was trained on"
            )
        own, other = self.config.backbone_fingerprint, backbone.fingerprint()
        if own != other:
            raise UserError(
                f"this side network was made for another backbone: it names {own[:12]}, and this "
                f"one is {other[:12]}; load the backbone that it was trained on"
            )


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({size / 1e6:.1f} M)" for name, size in sizes.items())


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all of its parameters set to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's CPU generator start from `seed`, and leave it as it was.

    Unlike torch.manual_seed, this reaches no CUDA generator.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
