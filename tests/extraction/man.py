"""Small videos of a talking man, cut from a real one, and how to extract them: BlazePose starts in
a worker within a second."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from lisa_video.assets import fetch_asset
from lisa_video.extraction_config import ClipsConfig, ExtractPosesConfig
from lisa_video.video import read_video, write_video

FPS = 25


@lru_cache(maxsize=1)
def _film() -> np.ndarray:
    """uint8 (120, 144, 176, 3)."""
    return read_video(fetch_asset("clips") / "carphone_pristine.mp4").frames


def write_man(path: Path, start: int, count: int = 12) -> Path:
    """Frames from `start` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, _film()[start : start + count], fps=FPS)
    return path


def man_config(source: Path, out: Path) -> ExtractPosesConfig:
    return ExtractPosesConfig(
        source, out, clips=ClipsConfig(min_frames=4, max_frames=40), workers=1
    )
