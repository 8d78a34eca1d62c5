"""What training changes about its clips. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lisa_video.errors import UserError

CropCentre = Literal["picture", "people"]


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training clips; as it stands, none."""

    flip: float = 0.0
    """Share of windows that are mirrored, with left and right joints and words exchanged; never
    clips whose captions say left or right in a sense that mirroring does not turn."""
    crop_scale: tuple[float, float] = (1.0, 1.0)
    """Least and greatest size of a window's cut, as a share of the largest of the shape wanted."""
    crop_shift: float = 0.0
    """How far a cut may lie off its centre: 0 not at all, 1 as far as the picture goes."""
    crop_centre: CropCentre = "picture"
    """What cuts are centred on: the picture, or the people of the window."""
    joint_dropout: float = 0.0
    """Share of each person's joints that are withheld from the condition, for a whole window."""
    frame_dropout: float = 0.0
    """Share of the frames of a window whose poses are withheld from the condition; where frames are
    weighted (`alignment.frame_weighting`), these weigh nothing in the alignment loss."""

    def __post_init__(self) -> None:
        for name in ("flip", "crop_shift", "joint_dropout", "frame_dropout"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise UserError(f"data.augmentation.{name}={share}: a share lies in [0, 1]")
        least, most = self.crop_scale
        if not (math.isfinite(least) and 0 < least <= most <= 1):
            raise UserError(
                f"data.augmentation.crop_scale={[least, most]}: must be two shares above 0 and up "
                "to 1, the lesser one first"
            )

    @property
    def crops(self) -> bool:
        """Whether the part of the picture that is seen changes from window to window."""
        whole = self.crop_scale == (1.0, 1.0) and not self.crop_shift
        return not whole or self.crop_centre == "people"

    @property
    def withholds(self) -> bool:
        """Whether joints or frames are withheld."""
        return self.joint_dropout > 0 or self.frame_dropout > 0
