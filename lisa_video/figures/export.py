"""Render figures into a dataset in the format of data/README.md, with their true poses.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig, FiguresDatasetConfig
from lisa_video.figures.dataset import render_clips, split_recordings
from lisa_video.figures.motion import load_mocap
from lisa_video.figures.render import FigureClip
from lisa_video.manifest import DatasetWriter
from lisa_video.poses import PoseSequence

DETECTOR = "ground-truth"


def check_export(config: FiguresDatasetConfig) -> None:
    """UserError where the output folder holds anything."""
    if config.output.exists() and not config.output.is_dir():
        raise UserError(f"{config.output}: is a file; choose another output")
    if config.output.is_dir() and any(config.output.iterdir()):
        raise UserError(f"{config.output}: is not empty; remove it or choose another output")


def export_figures(config: FiguresDatasetConfig, motion_folder: Path) -> Path:
    """Render both splits into `config.output` and return it; the same config gives the same clips.

    Args:
        config: what to render and where.
        motion_folder: the recordings, `fetch_asset("motions")`.

    Raises:
        UserError: the output is not empty; `figures.held_out` is wrong; a file cannot be written.
    """
    check_export(config)
    # Before a folder is made: a wrong name must not leave one behind.
    split_recordings(load_mocap(motion_folder), config.figures.held_out)
    with DatasetWriter(config.output) as writer:
        for split, figures in _splits(config):
            clips = render_clips(figures, motion_folder, held_out=split == "validation")
            progress = tqdm(clips, total=figures.clips, desc=split, unit="clip", disable=None)
            for index, clip in enumerate(progress):
                poses = true_poses(clip, figures.fps)
                name = f"{split}-{index:05d}"
                writer.add(name, clip.frames, poses, caption=clip.caption, split=split)
    return config.output


def true_poses(clip: FigureClip, fps: float) -> PoseSequence:
    """The keypoints that a clip was rendered from."""
    height, width = clip.frames.shape[1:3]
    return PoseSequence(clip.keypoints, width, height, fps, detector=DETECTOR)


def _splits(config: FiguresDatasetConfig) -> Iterator[tuple[str, FiguresConfig]]:
    yield "train", config.figures
    if config.validation_clips:
        yield "validation", replace(config.figures, clips=config.validation_clips)
