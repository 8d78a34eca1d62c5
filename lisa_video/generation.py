"""Generate a video from poses or a driving video, and a prompt.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray
from tqdm import tqdm

from lisa_video.adapters import load_lora, remove_lora
from lisa_video.attention import use_attention
from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import resolved_yaml
from lisa_video.detectors import build_detector, check_detector
from lisa_video.driver import FittedDriver, check_driver, fit_driver, stream_poses
from lisa_video.errors import UserError
from lisa_video.generation_config import DrivingConfig, GenerateConfig
from lisa_video.loading import cast
from lisa_video.long_video.prompts import travel_weights
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.pipeline.control import frame_scales
from lisa_video.pipeline.request import fitting_frames, window_plan
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.reports import write_json
from lisa_video.training.setup import open_backbone
from lisa_video.video import VideoInfo, iter_frames_at, probe_video, write_video


def check_generation(config: GenerateConfig) -> None:
    """Raises UserError for what can be told before detecting and generating; writes nothing."""
    for path in _outputs(config):
        if path.exists():
            raise UserError(f"{path}: exists already; give another name or remove it first")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    frames = check_driving(config.driving)
    check_against_backbone(config, load_pipeline(config).backbone, frames)


def check_driving(driving: DrivingConfig) -> int:
    """Frames to generate; raises UserError for what can be told of the driver before detecting."""
    check_driver(driving.retarget, driving.detector)
    if driving.video is None:
        return len(driving_poses(driving))
    check_detector(driving.detector)
    return len(video_indices(driving, driving.video)[0])


def check_against_backbone(config: GenerateConfig, backbone: VideoBackbone, frames: int) -> None:
    """Raises UserError where size, number of frames or windows are not for the backbone."""
    backbone.check_size(frame_size(config, backbone))
    if config.window is None:
        backbone.check_frames(frames, "driving.frames")
    padded = fitting_frames(backbone, frames, config.window)
    window_plan(backbone, padded, config.window)
    frame_scales(backbone, config.control.scale, frames, padded)
    if config.later_prompts:
        travel_weights(config.travel(), frames)


def generate(config: GenerateConfig) -> PoseSequence:
    """Generate and write the video; returns the poses that it was asked to follow.

    Raises UserError as `check_generation`, and where files cannot be written or nobody is found.
    """
    _make_folders(config)
    driver = fitted_driver(config.driving)
    pipeline = load_pipeline(config)
    poses = framed(driver.poses, frame_size(config, pipeline.backbone), config.driving.framing)
    print(_plan_line(config, pipeline.backbone, len(poses)))
    write_video(config.output, generate_frames(pipeline, config, poses), poses.fps)
    _settings_file(config).write_text(resolved_yaml(config), encoding="utf-8")
    if config.poses_output is not None:
        poses.save(config.poses_output)
    if config.driving.retarget.wanted:
        print(driver.record.summary())
        write_json(_driver_file(config), driver.record.to_json())
    return poses


def generate_frames(
    pipeline: PoseToVideoPipeline,
    config: GenerateConfig,
    poses: PoseSequence,
    on_step: Callable[[int], None] = lambda step: None,
) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 (H, W, 3), one by one, of the size of `poses`, in pixels of the result; `on_step`
    is called with the number of steps that are done, after each."""

    def step_ended(_: object, step: int, timestep: object, tensors: dict) -> dict:
        on_step(step + 1)
        return tensors

    return pipeline.stream(
        config.travel() if config.later_prompts else config.prompt,
        poses,
        width=poses.width,
        height=poses.height,
        negative_prompt=config.sampling.negative_prompt,
        num_inference_steps=config.sampling.steps,
        guidance_scale=config.sampling.guidance_scale,
        control_scale=config.control.scale,
        control_start=config.control.start,
        control_end=config.control.end,
        share_control=config.control.share,
        window=config.window,
        # On the CPU, so that a seed gives the same noise on every device.
        generator=torch.Generator().manual_seed(config.sampling.seed),
        callback_on_step_end=step_ended,
    )


def load_pipeline(
    config: GenerateConfig, backbone: VideoBackbone | None = None
) -> PoseToVideoPipeline:
    """Backbone, unless one is given, and side network on the configured device; UserError where they
    do not fit."""
    cuda = config.device != "cpu" and torch.cuda.is_available()
    backbone = backbone or open_backbone(config.backbone, getattr(torch, config.dtype))
    side_network = load_side_network(config.side_network)
    side_network.check_condition("pose")
    cast(side_network, backbone.dtype)
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side_network)
    remove_lora(backbone.main_network)  # of an earlier pipeline over the same backbone
    if config.lora is not None:
        load_lora(backbone.main_network, config.lora, backbone.network_name)
    if config.sampling.scheduler is not None:
        pipeline.scheduler = scheduler_of(config.sampling.scheduler, backbone)
    if config.vae_tiling:
        pipeline.enable_vae_tiling()
    place(pipeline, config.offload, "cuda" if cuda else "cpu")
    networks = (backbone.main_network, side_network)
    print(use_attention(config.attention, networks, backbone.dtype, training=False))
    return pipeline


def place(pipeline: PoseToVideoPipeline, offload: str, device: str) -> None:
    """Move the models to the device, or leave it to hooks; UserError where there is no CUDA."""
    if offload == "none":
        pipeline.to(device)
    elif device == "cpu":
        raise UserError(f"offload={offload}: is for CUDA, and torch finds no such device here")
    elif offload == "model":
        pipeline.enable_model_cpu_offload()
    else:
        pipeline.enable_sequential_cpu_offload()


def scheduler_of(name: str, backbone: VideoBackbone) -> SchedulerMixin:
    """The diffusers scheduler of this name, with the checkpoint's noise levels.

    Raises UserError where there is none, or it is not for what the backbone predicts.
    """
    found: Any = getattr(diffusers, name, None)
    is_scheduler = isinstance(found, type) and issubclass(found, SchedulerMixin)
    if not is_scheduler:
        raise UserError(f"sampling.scheduler={name}: diffusers has no scheduler of this name")
    own, settings = backbone.scheduler.config, {}
    flow_only = name.startswith("FlowMatch")
    takes_flow = "use_flow_sigmas" in inspect.signature(found.__init__).parameters
    wants_flow = backbone.prediction_type == "flow"
    if (wants_flow and not (flow_only or takes_flow)) or (flow_only and not wants_flow):
        raise UserError(
            f"sampling.scheduler={name}: is not for a backbone that predicts "
            f"{backbone.prediction_type}"
        )
    if wants_flow and takes_flow:
        shift = own.get("shift", own.get("flow_shift", 1.0))
        settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        settings |= {"flow_shift": shift}
    scheduler: SchedulerMixin = found.from_config(own, **settings)
    return scheduler


def frame_size(config: GenerateConfig, backbone: VideoBackbone) -> tuple[int, int]:
    """Width and height of the result: as configured, else those the backbone was trained at."""
    size = config.size or backbone.frame_size
    if size is None:
        raise UserError(
            f"size: a backbone of kind {backbone.kind} does not say what it was trained at; give "
            "width and height"
        )
    return size


def driving_poses(driving: DrivingConfig) -> PoseSequence:
    """The poses to follow, in pixels of the source, or of the reference that they are fitted to;
    fps is that of the result.

    Raises UserError where the source cannot be read, is too short, or shows nobody, or more people
    than expected; and as `fit_driver`.
    """
    return fitted_driver(driving).poses


def fitted_driver(
    driving: DrivingConfig, on_frame: Callable[[int, int], None] = lambda done, total: None
) -> FittedDriver:
    """The same with what was done; errors as in `driving_poses`. `on_frame` is called with the number
    of frames that a detector has been given, and that of all."""
    path, poses = _source_poses(driving, on_frame)
    if not poses.keypoints[..., 2].any():
        raise UserError(f"{path}: nobody in the frames chosen, see driving.start and driving.fps")
    poses = replace(poses, fps=driving.fps or poses.fps)
    return fit_driver(
        poses, driving.person, driving.smoothing, driving.retarget, driving.detector, path
    )


def _source_poses(
    driving: DrivingConfig, on_frame: Callable[[int, int], None]
) -> tuple[Path, PoseSequence]:
    """File of the driver, and the poses of everybody in the chosen frames."""
    if driving.poses is not None:
        path, source = driving.poses, PoseSequence.load(driving.poses, require_people=True)
        return path, source.frames(frame_indices(driving, len(source), source.fps, path))
    assert driving.video is not None
    return driving.video, _detected(driving, driving.video, on_frame)


def frame_indices(driving: DrivingConfig, length: int, fps: float, path: Path) -> list[int]:
    """Source frames to follow; raises UserError where the source has too few of them."""
    step = 1.0 if driving.fps is None else fps / driving.fps
    frames = (
        _all_frames(length - driving.start, step) if driving.frames == "all" else driving.frames
    )
    indices = [driving.start + round(index * step) for index in range(frames)]
    if not indices or indices[-1] >= length:
        raise UserError(
            f"{path}: has {length} frames, and {driving.frames} frames from driving.start="
            f"{driving.start} at {driving.fps or fps:g} fps reach to frame "
            f"{indices[-1] if indices else driving.start}"
        )
    return indices


def _all_frames(length: int, step: float) -> int:
    """Most frames, `step` apart, that a source with `length` frames left has."""
    frames = max(0, int((length - 1) / step) + 2)
    while frames and round((frames - 1) * step) >= length:
        frames -= 1
    return frames


def _detected(
    driving: DrivingConfig, path: Path, on_frame: Callable[[int, int], None]
) -> PoseSequence:
    """One frame is held at a time, however long the video is."""
    indices, info = video_indices(driving, path)

    total = len(indices)

    def frames() -> Iterator[NDArray[np.uint8]]:
        source = iter_frames_at(path, indices)
        bar = tqdm(source, total=total, desc="poses", unit="frame", disable=None)
        for done, frame in enumerate(bar, 1):
            on_frame(done, total)
            yield frame

    detector = build_detector(driving.detector)
    return stream_poses(frames(), (info.width, info.height), info.fps, detector)


def video_indices(driving: DrivingConfig, path: Path) -> tuple[list[int], VideoInfo]:
    """Frames of the video to follow, and what the video is."""
    info = probe_video(path)
    return frame_indices(driving, info.frames, info.fps, path), info


def _plan_line(config: GenerateConfig, backbone: VideoBackbone, frames: int) -> str:
    """What is generated, in one line for the user."""
    rate = config.driving.fps
    line = f"{frames} frames" + (f" at {rate:g} fps" if rate else "")
    if config.window is None:
        return f"{line}, at once"
    if frames <= config.window.frames:
        return f"{line}, no longer than a window of {config.window.frames}: at once"
    plan = window_plan(backbone, fitting_frames(backbone, frames, config.window), config.window)
    most = max(len(plan.starts(step)) for step in range(plan.stride))
    return f"{line}, in up to {most} windows of {config.window.frames} frames"


def _outputs(config: GenerateConfig) -> Sequence[Path]:
    files = [config.output, _settings_file(config)]
    if config.driving.retarget.wanted:
        files.append(_driver_file(config))
    return files if config.poses_output is None else [*files, config.poses_output]


def _make_folders(config: GenerateConfig) -> None:
    for folder in {path.parent for path in _outputs(config)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make this folder: {error.strerror}") from None


def _driver_file(config: GenerateConfig) -> Path:
    return config.output.with_suffix(".driver.json")


def _settings_file(config: GenerateConfig) -> Path:
    return config.output.with_suffix(".yaml")
