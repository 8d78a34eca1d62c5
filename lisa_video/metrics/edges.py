"""How well the edges of a video follow those asked for.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EdgeScores:
    """Shares in [0, 1], NaN where there is no edge to take a share of."""

    precision: float
    """Of the edge pixels found, those within the tolerance of one asked for."""
    recall: float
    """Of the edge pixels asked for, those within the tolerance of one found."""

    @property
    def f1(self) -> float:
        """Their harmonic mean; 0 where nothing meets."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0 * both


def edge_scores(
    asked: NDArray[np.bool_], found: NDArray[np.bool_], *, tolerance: int = 1
) -> EdgeScores:
    """Compare edge maps (F, H, W), over all frames together.

    `tolerance` is the largest distance in pixels along either axis at which two edge pixels meet.
    Source: the boundary F-measure of Martin, Fowlkes & Malik 2004, with neighbourhoods in place of
    a one-to-one matching.
    """
    assert asked.shape == found.shape and asked.ndim == 3, (asked.shape, found.shape)
    return EdgeScores(
        precision=_share(found, _widened(asked, tolerance)),
        recall=_share(asked, _widened(found, tolerance)),
    )


def _share(edges: NDArray[np.bool_], near: NDArray[np.bool_]) -> float:
    count = edges.sum()
    return float((edges & near).sum() / count) if count else float("nan")


def _widened(edges: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    square = np.ones((2 * by + 1, 2 * by + 1), dtype=np.uint8)
    return np.stack([cv2.dilate(frame.astype(np.uint8), square) > 0 for frame in edges])
