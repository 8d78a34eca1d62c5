"""What a side network hands to its backbone.

Shape legend: B batch, F frames, C channels of the skip, h w its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SideResiduals:
    """Residuals by injection point; a point that is missing receives nothing.

    Attributes:
        points: injection point ("down_0", "down_1", ..., "mid") -> (B*F, C, h, w), frames of a clip adjacent.
    """

    points: dict[str, Tensor]

    def scaled(self, scale: float) -> SideResiduals:
        """All residuals times the control scale."""
        return SideResiduals({name: scale * value for name, value in self.points.items()})
