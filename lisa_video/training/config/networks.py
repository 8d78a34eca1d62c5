"""The trained networks of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError


@dataclass(frozen=True)
class SideNetworkConfig:
    """The trained network."""

    injection: list[str | int] | dict[str, int] | Literal["all"] = "all"
    """Injection points with a zero projection: names such as [down_5, mid] or indices such as
    [0, 3, 6], {stride: k} for every k-th from the first, {even: n} for the last of each of n equal
    groups, or all."""
    hidden_size: int | None = None
    """Wan, CogVideoX: width of the copied blocks, whole attention heads; null: the backbone's."""
    pose_init: Literal["zero", "normal"] = "zero"
    """Start of the pose encoder: zero as in ControlNet, or normal: poses are seen at once."""
    init_from: Path | None = None
    """Folder of a side network of this backbone to start from, instead of a copy of the backbone;
    the settings above are then that network's."""
    controlnet: str | None = None
    """AnimateDiff: folder or hub name of a diffusers ControlNet to start from; only the motion
    modules stay the backbone's. Step 0 is then that ControlNet's control, frame by frame, and
    `pose_init` has no effect."""
    freeze: list[str] = field(default_factory=list)
    """Parts that stay as they start, by pattern over parameter names, as optimizer.lr_scales has
    them: [motion_modules], [blocks.block_0]."""

    motion_modules: bool = True
    """AnimateDiff: copy the backbone's motion modules, too. Without them the side network looks at
    each frame alone, is smaller, and can be exported as a ControlNet."""

    def __post_init__(self) -> None:
        if not self.injection:
            raise UserError("side_network.injection is empty: name injection points, or 'all'")
        if self.init_from is not None and self.controlnet is not None:
            raise UserError("side_network: give either init_from or controlnet")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in the main network (extra lora), trained with the side network.

    They serve the controlled prediction alone: the prior stays that of the frozen main network.
    """

    rank: int = 0
    """Rank of the adapters; 0: none."""
    alpha: int | None = None
    """Their output is scaled by alpha / rank; null: by 1."""
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])
    """Linear and convolution layers of the main network that get one, by pattern over their dotted
    names, as optimizer.lr_scales has them. With none before the first injection point,
    [up_blocks.*.to_q], the prior stays nearly free; else it costs a forward of its own."""
    lr_scale: float = 1.0
    """Learning rate of the adapters as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        at_least(0, "lora", rank=self.rank)
        positive("lora", lr_scale=self.lr_scale)
        if self.alpha is not None:
            positive("lora", alpha=self.alpha)
        if self.rank and not self.targets:
            raise UserError(
                "lora.targets is empty: name layers of the main network, or lora.rank 0"
            )
