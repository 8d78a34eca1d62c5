"""What the page asks for, checked and done; knows nothing of the page itself.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lisa_video.cli import resolved_yaml
from lisa_video.clip_files import VIDEO_SUFFIXES
from lisa_video.driver import FittedDriver, check_driver
from lisa_video.driver_config import BuildConfig, Person, RetargetConfig
from lisa_video.driving_source import fitted_driver, frame_indices
from lisa_video.errors import UserError
from lisa_video.gallery import labelled_row
from lisa_video.generation_config import ControlConfig, DrivingConfig, SamplingConfig
from lisa_video.long_video.settings import WindowSettings
from lisa_video.poses.framing import Framing
from lisa_video.rendering.config import DRIVER, SKELETON, RenderConfig
from lisa_video.rendering.grid import skeleton_picture
from lisa_video.rendering.job import Progress, Rendered, check_render, render
from lisa_video.training.setup import open_backbone
from lisa_video.video import VideoWriter, iter_frames_at, probe_video
from lisa_video.web.config import BACKBONE_ALONE, WebConfig
from lisa_video.web.uploads import POSE_SUFFIX, check_driver_file, check_reference_file

_PREVIEW_SIDE = 240  # pixels
_GRID_SIDE = 256
_OVERLAP = 4  # frames of neighbouring windows

open_once = lru_cache(maxsize=1)(open_backbone)
"""The backbone that was asked for last stays in memory."""


@dataclass(frozen=True)
class BodyChoice:
    """Whose limbs the driver takes; its own where nothing is given."""

    reference: Path | None = None
    """Uploaded file."""
    frame: int = 0
    """Of a video that is the reference, counted from 0; a pose file is taken whole."""
    height: float | None = None
    """This and the others as in `BuildConfig`."""
    head: float | None = None
    torso: float | None = None
    legs: float | None = None
    arms: float | None = None
    shoulders: float | None = None


@dataclass(frozen=True)
class DriverChoice:
    """The motion to follow, as chosen on the page."""

    upload: Path | None
    """Uploaded file, which goes before the sample."""
    sample: str | None
    """Name of a sample."""
    detector: str
    framing: Framing
    person: Person
    start: int
    """First frame, counted from 0."""
    frames: int
    """Frames of the result."""
    fps: float
    """Frames per second of the result; 0 is the driver's own."""
    body: BodyChoice = field(default_factory=BodyChoice)


@dataclass(frozen=True)
class ClipChoice:
    """What to make of it."""

    model: str
    checkpoints: tuple[str, ...]
    """Labels, shown side by side."""
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    control_scale: float
    window: int
    """Frames of a window; 0 makes all at once."""
    score: bool
    """Draw the joints that are found, and the PCK."""


@dataclass(frozen=True)
class Result:
    """What the page offers."""

    video: Path
    settings: Path
    """YAML that demo/render.py takes."""
    text: str
    """Lines about the driver and the scores."""
    cut: str
    """What of the prompt was too long to be read."""


class ResultFolders:
    """Folders for results, of which the newest are kept."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root, self._keep = root, keep
        self._folders: list[Path] = []

    @contextmanager
    def new(self) -> Iterator[Path]:
        """An empty folder, which stays when the block ends well; the oldest ones go then."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._folders.append(folder)
        while len(self._folders) > self._keep:
            shutil.rmtree(self._folders.pop(0), ignore_errors=True)


def driver_file(config: WebConfig, choice: DriverChoice) -> Path:
    """The file that is chosen; raises UserError where none is."""
    if choice.upload is not None:
        return choice.upload
    if choice.sample is None:
        raise UserError("no driver: upload a video or a pose file, or pick a sample")
    return config.samples[choice.sample]


def chosen_driver(config: WebConfig, choice: DriverChoice) -> DrivingConfig:
    """The driver as the jobs take it.

    Raises UserError where none is chosen, or a file is too large, too long or cannot be read.
    """
    path = driver_file(config, choice)
    if choice.frames > config.limits.frames:
        raise UserError(f"{choice.frames} frames: at most {config.limits.frames} are made here")
    if choice.upload is not None:
        check_driver_file(path, config.limits)
    is_poses = path.suffix.lower() == POSE_SUFFIX
    return DrivingConfig(
        poses=path if is_poses else None,
        video=None if is_poses else path,
        detector=choice.detector,
        framing=choice.framing,
        person=choice.person,
        start=choice.start,
        frames=choice.frames,
        fps=choice.fps or None,
        retarget=_retargeting(config, choice),
    )


def _retargeting(config: WebConfig, choice: DriverChoice) -> RetargetConfig:
    """Raises UserError for a reference that cannot be taken, or a build beside it."""
    shares = asdict(choice.body)
    path, frame = shares.pop("reference"), shares.pop("frame")
    build = BuildConfig(**shares)
    if path is None:
        return RetargetConfig(build=build)
    if build.stated:
        raise UserError("give either a reference or a build, and empty the other")
    check_reference_file(path, config.limits)
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    retargeting = RetargetConfig(reference=path, frame=frame if is_video else None)
    check_driver(retargeting, choice.detector)
    return retargeting


def skeleton_preview(
    config: WebConfig, choice: DriverChoice, folder: Path
) -> tuple[Path, FittedDriver]:
    """A video of the driver beside its skeleton, and what was found.

    Raises UserError as `chosen_driver`, and where nobody or more people than expected are found.
    """
    driving = chosen_driver(config, choice)
    driver = fitted_driver(driving)
    source = None
    if driving.video is not None:
        info = probe_video(driving.video)
        indices = frame_indices(driving, info.frames, info.fps, driving.video)
        source = iter_frames_at(driving.video, indices)
    path = folder / "skeleton.mp4"
    with VideoWriter(path, driver.poses.fps) as writer:
        for number in range(len(driver.poses)):
            panels = {} if source is None else {DRIVER: next(source)}
            panels[SKELETON] = skeleton_picture(driver.poses, number, _PREVIEW_SIDE)
            writer.write(labelled_row(panels, _PREVIEW_SIDE))
    return path, driver


def generated(
    config: WebConfig,
    driver: DriverChoice,
    clip: ClipChoice,
    folder: Path,
    on_progress: Callable[[Progress], None],
) -> Result:
    """Generate with each checkpoint, and write video and settings into the folder.

    Raises UserError as `chosen_driver` and `check_render`, and what `on_progress` raises.
    """
    settings = render_config(config, driver, clip, folder / "result.mp4")
    backbone = open_once(settings.backbone, getattr(torch, settings.dtype))
    check_render(settings, backbone)
    rendered = render(settings, on_progress, backbone)
    path = folder / "settings.yaml"
    path.write_text(_portable(settings), encoding="utf-8")
    return Result(settings.output, path, _told(rendered), backbone.cut_text(clip.prompt))


def render_config(
    config: WebConfig, driver: DriverChoice, clip: ClipChoice, output: Path
) -> RenderConfig:
    """The job of demo/render.py that makes what is asked for; raises UserError."""
    model = config.models[clip.model]
    if clip.steps > config.limits.steps:
        raise UserError(f"{clip.steps} steps: at most {config.limits.steps} are made here")
    known: dict[str, str | list[str] | None] = {BACKBONE_ALONE: None, **model.checkpoints}
    labels = {label: known[label] for label in known if label in clip.checkpoints}
    if not any(labels.values()):
        raise UserError(f"choose a checkpoint, with or without '{BACKBONE_ALONE}'")
    return RenderConfig(
        backbone=model.backbone,
        side_networks=labels,
        driving=chosen_driver(config, driver),
        prompts=(clip.prompt,),
        output=output,
        overlay=model.scorer if clip.score else None,
        side=_GRID_SIDE,
        size=model.size,
        window=_window(clip.window),
        sampling=SamplingConfig(
            steps=clip.steps,
            guidance_scale=clip.guidance_scale,
            negative_prompt=clip.negative_prompt,
            seed=clip.seed,
        ),
        control=ControlConfig(scale=clip.control_scale),
        device=config.device,
        dtype=model.dtype,
        attention=config.attention,
    )


def plain_line(error: UserError, *paths: Path | None) -> str:
    """The error's line for a visitor, with names in place of this machine's paths."""
    line = " ".join(str(error).split())
    for path in paths:
        if path is not None:
            line = line.replace(str(path), path.name)
    return line


def _window(frames: int) -> WindowSettings | None:
    if not frames:
        return None
    return WindowSettings(frames=frames, overlap=min(_OVERLAP, frames - 1))


def _portable(settings: RenderConfig) -> str:
    """The settings with names in place of this machine's temporary paths."""
    driving = settings.driving
    names: dict[str, Any] = {
        key: Path(value.name)
        for key in ("video", "poses")
        if (value := getattr(driving, key)) is not None
    }
    if (reference := driving.retarget.reference) is not None:
        names["retarget"] = replace(driving.retarget, reference=Path(reference.name))
    own = replace(settings, driving=replace(driving, **names), output=Path(settings.output.name))
    return f"# python demo/render.py --config settings.yaml\n{resolved_yaml(own)}"


def _told(rendered: Rendered) -> str:
    lines = [rendered.driver.record.summary()]
    lines += [f"{label}: PCK@0.1 {score.pck:.2f}" for (label, _), score in rendered.scores.items()]
    return "\n".join(lines)
