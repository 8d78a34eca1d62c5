"""Small videos of rendered figures, which the shipped detector finds in milliseconds."""

from pathlib import Path

import numpy as np

from lisa_video.extraction_config import ClipsConfig, ExtractPosesConfig, PeopleConfig
from lisa_video.figures.motion import procedural_motion
from lisa_video.figures.render import render_clip
from lisa_video.video import write_video

FPS = 8
DETECTED = PeopleConfig(min_confidence=0.05, min_presence=0.1, min_height=0.05)


def figure_frames(seed: int, count: int = 12) -> np.ndarray:
    """uint8 (count, 64, 64, 3): a figure that moves before a background of its own."""
    rng = np.random.default_rng(seed)
    motion = procedural_motion(rng)
    return render_clip(motion, rng, frames=count, fps=FPS, size=(64, 64)).frames


def write_figures(path: Path, seed: int, count: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, figure_frames(seed, count), fps=FPS)
    return path


def figures_config(source: Path, out: Path) -> ExtractPosesConfig:
    return ExtractPosesConfig(
        source,
        out,
        detector="figures",
        clips=ClipsConfig(min_frames=4, max_frames=40),
        people=DETECTED,
        workers=1,
    )
