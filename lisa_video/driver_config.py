"""Settings of how a driver's motion is made fit to be followed. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from lisa_video.errors import UserError

Person = int | Literal["only", "all"]


@dataclass(frozen=True)
class BuildConfig:
    """A body in numbers; null is as the driver's. Stature is measured from the nose to the foot,
    along the limbs: head, torso and legs make it up, and those of the three that are not given
    share what is left."""

    height: float | None = None
    """Stature as a share of the height of the driver's picture."""
    head: float | None = None
    """Neck to nose, as a share of the stature; an adult's is about 0.12."""
    torso: float | None = None
    """Neck to hip, as a share of the stature; 0.34."""
    legs: float | None = None
    """Hip to ankle, as a share of the stature; 0.54."""
    arms: float | None = None
    """Shoulder to wrist, as a share of the stature; 0.36."""
    shoulders: float | None = None
    """Width, as a share of the stature; 0.26."""

    def __post_init__(self) -> None:
        key = "driving.retarget.build"
        for name, value in self._given().items():
            if not 0 < value <= (10 if name == "height" else 1):
                raise UserError(f"{key}.{name}={value}: must be above 0, and a share")
        upright = [getattr(self, name) for name in ("head", "torso", "legs")]
        stated = [share for share in upright if share is not None]
        total = sum(stated)
        if len(stated) == 3 and not math.isclose(total, 1, abs_tol=0.005):
            raise UserError(f"{key}: head, torso and legs add up to {total:g}, they must make up 1")
        if len(stated) < 3 and total >= 1:
            raise UserError(f"{key}: head, torso and legs add up to {total:g}, nothing is left")

    @property
    def stated(self) -> bool:
        """Whether anything is given."""
        return bool(self._given())

    def _given(self) -> dict[str, float]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class RetargetConfig:
    """Whose limbs, size and place the driver takes: a reference's, or a stated build; none of both
    leaves it as it is."""

    reference: Path | None = None
    """Pose file (.npz), picture or video of the person to take the limbs and the place of."""
    frame: int | None = None
    """Frame of the reference, counted from 0; null takes all frames of a pose file. A video needs
    one."""
    max_change: float = 2.0
    """Limbs whose change differs from that of the whole body by more than this factor are taken for
    foreshortened, and change with the body."""
    build: BuildConfig = field(default_factory=BuildConfig)
    """In place of a reference."""

    def __post_init__(self) -> None:
        key = "driving.retarget"
        if self.reference is not None and self.build.stated:
            raise UserError(f"{key}: give either {key}.reference or {key}.build")
        if self.frame is not None and (self.reference is None or self.frame < 0):
            raise UserError(f"{key}.frame={self.frame}: a frame of {key}.reference, counted from 0")
        if not (math.isfinite(self.max_change) and self.max_change >= 1):
            raise UserError(f"{key}.max_change={self.max_change}: must be at least 1")

    @property
    def wanted(self) -> bool:
        """Whether there is something to fit to."""
        return self.reference is not None or self.build.stated
