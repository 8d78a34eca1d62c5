"""Render a driver and what checkpoints make of it: check, generate, compose, write.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import resolved_yaml
from lisa_video.detectors import build_detector, check_detector
from lisa_video.driver import FittedDriver
from lisa_video.driving_conditions import check_conditions
from lisa_video.driving_source import check_driving, fitted_driver, frame_indices
from lisa_video.errors import UserError
from lisa_video.gallery import contact_sheet
from lisa_video.generation import (
    check_against_backbone,
    frame_size,
    generate_frames,
    load_pipeline,
)
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.rendering.config import RenderConfig
from lisa_video.rendering.grid import Moment, Picture, grid_picture, moments
from lisa_video.rendering.scores import FollowedPoses, followed_poses
from lisa_video.rendering.spool import ClipSpool
from lisa_video.reports import replace_text, write_json
from lisa_video.training.setup import open_backbone
from lisa_video.video import VideoInfo, VideoWriter, iter_frames_at, probe_video
from lisa_video.video.gif import write_gif
from lisa_video.video.sound import cut_sound, join_sound

Scores = dict[tuple[str, str], FollowedPoses]
"""By label of the checkpoint and prompt."""

_SHEET_PICTURES = 8
_SHEET_SIDE = 96  # pixels


@dataclass(frozen=True)
class Progress:
    """How far a phase of a rendering is."""

    phase: Literal["poses", "clips", "grid"]
    label: str
    """Checkpoint at work on the clips, else empty."""
    done: int
    """Frames, of clips the sampling steps of them all."""
    total: int


@dataclass(frozen=True, eq=False)
class Rendered:
    """What a rendering left."""

    poses: PoseSequence
    """As the clips were asked to follow them."""
    driver: FittedDriver
    scores: Scores
    """Where an overlay was asked for."""


def check_render(config: RenderConfig, backbone: VideoBackbone | None = None) -> None:
    """Raises UserError for what can be told before detecting and generating; writes nothing. The
    backbone is loaded unless it is at hand."""
    for path in output_files(config):
        if path.exists():
            raise UserError(f"{path}: exists already; give another name or remove it first")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    frames = check_driving(config.driving)
    _driving_frames(config)
    if config.overlay is not None:
        check_detector(config.overlay)
    backbone = backbone or open_backbone(config.backbone, getattr(torch, config.dtype))
    for label in config.side_networks:
        for folder in config.folders(label):
            _check_side_network(config, label, folder, backbone)
        if label in config.loras and not config.loras[label].is_dir():
            raise UserError(f"loras '{label}': {config.loras[label]}: no such folder")
    check_against_backbone(config.generation(*_first_clip(config)), backbone, frames)


def render(
    config: RenderConfig,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    backbone: VideoBackbone | None = None,
) -> Rendered:
    """Generate all clips, and write the video and what goes with it. The backbone is loaded unless it
    is at hand. `on_progress` is called at least once for each frame and each sampling step; what it
    raises ends the work, and nothing is left of it.

    Raises UserError as `check_render`, and where files cannot be written or nobody is found.
    """
    for path in output_files(config):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot make this folder: {error.strerror}") from None
    driver = fitted_driver(
        config.driving, lambda done, total: on_progress(Progress("poses", "", done, total))
    )
    with tempfile.TemporaryDirectory(
        dir=config.output.parent, prefix=f".{config.output.name}."
    ) as name:
        folder = Path(name)
        sound = _driving_sound(config, len(driver.poses), folder)
        spool = ClipSpool(folder)
        poses, scores = _generate_clips(config, driver.poses, spool, on_progress, backbone)
        shown = moments(
            _driving_frames(config),
            poses,
            spool,
            list(config.side_networks),
            config.prompts,
            config.side,
        )
        _write(config, shown, poses, scores, sound, folder, on_progress)
    replace_text(output_files(config)[1], resolved_yaml(config))
    write_json(output_files(config)[2], _figures(driver, scores))
    return Rendered(poses, driver, scores)


def output_files(config: RenderConfig) -> list[Path]:
    """Video, settings, figures and, where it is asked for, the sheet."""
    files = [config.output, config.output.with_suffix(".yaml"), config.output.with_suffix(".json")]
    return files if config.sheet is None else [*files, config.sheet]


def _generate_clips(
    config: RenderConfig,
    driving: PoseSequence,
    spool: ClipSpool,
    on_progress: Callable[[Progress], None],
    backbone: VideoBackbone | None,
) -> tuple[PoseSequence, Scores]:
    """Fill the spool; returns the poses that the clips follow, and their scores."""
    scores: Scores = {}
    detector = None if config.overlay is None else build_detector(config.overlay)
    backbone = backbone or open_backbone(config.backbone, getattr(torch, config.dtype))
    steps = config.sampling.steps
    clips = [(label, prompt) for label in config.side_networks for prompt in config.prompts]
    for number, (label, prompt) in enumerate(tqdm(clips, desc="clips", disable=None)):
        settings = config.generation(label, prompt)
        pipeline = load_pipeline(settings, backbone)
        poses = framed(driving, frame_size(settings, backbone), config.driving.framing)

        def on_step(step: int, label: str = label, before: int = number * steps) -> None:
            on_progress(Progress("clips", label, before + step, len(clips) * steps))

        generated = generate_frames(pipeline, settings, driving, on_step)
        clip = spool.add(label, prompt, _told(generated, partial(on_step, steps)))
        assert clip.shape[0] == len(poses), (clip.shape, len(poses))
        if detector is not None:
            scores[label, prompt] = followed_poses(clip, poses, detector)
    return poses, scores


def _told(frames: Iterator[Picture], tell: Callable[[], None]) -> Iterator[Picture]:
    """The frames, of each of which is told; decoding them may take as long as making them."""
    for frame in frames:
        tell()
        yield frame


def _write(
    config: RenderConfig,
    shown: Iterator[Moment],
    poses: PoseSequence,
    scores: Scores,
    sound: Path | None,
    folder: Path,
    on_progress: Callable[[Progress], None],
) -> None:
    """Compose each moment once, into the video and, for some, into the sheet."""
    sheet_at = set(np.linspace(0, len(poses) - 1, _SHEET_PICTURES).round().astype(int).tolist())
    sheet: dict[str, list[Picture]] = {}
    silent = folder / "silent.mp4"
    with VideoWriter(silent, poses.fps) as writer:
        for moment in tqdm(shown, total=len(poses), desc="grid", disable=None):
            writer.write(grid_picture(moment, scores, config.side))
            on_progress(Progress("grid", "", moment.number + 1, len(poses)))
            if config.sheet is not None and moment.number in sheet_at:
                _collect(moment, sheet)
    finished = folder / f"finished{config.output.suffix}"
    if config.output.suffix == ".gif":
        write_gif(silent, finished)
    elif sound is not None:
        join_sound(silent, sound, finished)
    else:
        finished = silent
    if config.sheet is not None:
        rows = [(label, np.stack(pictures)) for label, pictures in sheet.items()]
        picture = folder / "sheet.png"
        Image.fromarray(contact_sheet(rows, side=_SHEET_SIDE)).save(picture, optimize=True)
        os.replace(picture, config.sheet)
    os.replace(finished, config.output)


def _collect(moment: Moment, sheet: dict[str, list[Picture]]) -> None:
    """Add a moment's pictures to the rows of the sheet."""
    for label, picture in moment.shared.items():
        sheet.setdefault(label, []).append(picture)
    for prompt, panels in moment.generated.items():
        for label, picture in panels.items():
            sheet.setdefault(f"{label} | {prompt}", []).append(picture)


def _driving_frames(config: RenderConfig) -> Iterator[Picture] | None:
    """Frames of the driving video that the clips follow, one by one; None where there is none.

    Raises UserError where the video is not the one that the pose file was made of.
    """
    video = config.driving_video
    if video is None:
        return None
    info = probe_video(video)
    if config.driving.poses is not None:
        _check_belongs(config.driving.poses, video, info)
    return iter_frames_at(video, frame_indices(config.driving, info.frames, info.fps, video))


def _check_belongs(pose_file: Path, video: Path, info: VideoInfo) -> None:
    poses = PoseSequence.load(pose_file)
    if abs(poses.fps - info.fps) > 0.01 * info.fps:
        raise UserError(
            f"{video}: has {info.fps:g} frames per second, and {pose_file} has {poses.fps:g}; give "
            "the video that the poses were found in"
        )
    if len(poses) != info.frames:
        raise UserError(
            f"{video}: has {info.frames} frames, and {pose_file} has {len(poses)}; give the video "
            "that the poses were found in"
        )


def _driving_sound(config: RenderConfig, frames: int, folder: Path) -> Path | None:
    """The sound of the part of the driving video that is followed, where there is any."""
    video = config.driving_video
    if video is None or config.output.suffix == ".gif":
        return None
    fps = probe_video(video).fps
    path = folder / "sound.mp4"
    seconds = frames / (config.driving.fps or fps)
    return path if cut_sound(video, config.driving.start / fps, seconds, path) else None


def _check_side_network(
    config: RenderConfig, label: str, folder: str, backbone: VideoBackbone
) -> None:
    try:
        side = load_side_network(folder)
        side.check_backbone(backbone)
        check_conditions(config.driving, [side.config.condition])
    except UserError as error:
        raise UserError(f"side_networks '{label}': {folder}: {error}") from None


def _first_clip(config: RenderConfig) -> tuple[str, str]:
    return next(iter(config.side_networks)), config.prompts[0]


def _figures(driver: FittedDriver, scores: Scores) -> dict[str, object]:
    clips = [
        {"checkpoint": label, "prompt": prompt, **score.to_json()}
        for (label, prompt), score in scores.items()
    ]
    return {"driver": driver.record.to_json(), "clips": clips}
