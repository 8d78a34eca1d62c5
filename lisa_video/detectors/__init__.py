"""Pose detectors behind one interface, built by name from an explicit table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lisa_video.detectors.base import PoseDetector
from lisa_video.errors import UserError

__all__ = ["DETECTORS", "PoseDetector", "build_detector"]

_FIGURE_WEIGHTS = Path("data/embedded/animatediff/keypoints")  # below the repository's root


def _build_figures(weights: Path | None) -> PoseDetector:
    from lisa_video.detectors.figure_net import FigureDetector

    return FigureDetector(weights or Path(__file__).resolve().parents[2] / _FIGURE_WEIGHTS)


def _build_blazepose(weights: Path | None) -> PoseDetector:
    from lisa_video.assets import fetch_asset
    from lisa_video.detectors.blazepose import BlazePoseDetector

    return BlazePoseDetector(weights or fetch_asset("blazepose"))


def _build_rtmpose(weights: Path | None) -> PoseDetector:
    from lisa_video.detectors.rtmpose import RtmlibDetector

    return RtmlibDetector("rtmpose", weights)


def _build_dwpose(weights: Path | None) -> PoseDetector:
    from lisa_video.detectors.rtmpose import RtmlibDetector

    return RtmlibDetector("dwpose", weights)


DETECTORS: Mapping[str, Callable[[Path | None], PoseDetector]] = {
    "figures": _build_figures,
    "blazepose": _build_blazepose,
    "rtmpose": _build_rtmpose,
    "dwpose": _build_dwpose,
}
"""Name -> constructor; each imports what it needs when it is called."""


def check_detector(name: str) -> None:
    """Raises UserError, which lists the known names, where no detector is called `name`."""
    if name not in DETECTORS:
        raise UserError(f"unknown pose detector '{name}', known: {', '.join(DETECTORS)}")


def build_detector(name: str, *, weights: Path | None = None) -> PoseDetector:
    """The pose detector called `name`.

    Args:
        name: "figures" for the rendered figures of the embedded backbone, "blazepose" for one
            person, "rtmpose" and "dwpose", which also finds hands and faces, for several where
            rtmlib is installed.
        weights: folder with its weights; without it the shipped ones, or those that
            `fetch_asset` downloads.

    Raises:
        UserError: unknown name, or the weights are not there.
    """
    check_detector(name)
    return DETECTORS[name](weights)
