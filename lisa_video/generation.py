"""Generate a video from poses or a driving video, and a prompt.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lisa_video.adapters import load_lora
from lisa_video.attention import use_attention
from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import resolved_yaml
from lisa_video.detectors import build_detector, check_detector
from lisa_video.errors import UserError
from lisa_video.extraction import detect_poses
from lisa_video.generation_config import DrivingConfig, GenerateConfig
from lisa_video.loading import cast
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.training.setup import open_backbone
from lisa_video.video import probe_video, read_video, write_video


def check_generation(config: GenerateConfig) -> None:
    """Raises UserError for what can be told before detecting and generating; writes nothing."""
    for path in _outputs(config):
        if path.exists():
            raise UserError(f"{path}: exists already; give another name or remove it first")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    if config.driving.video is None:
        driving_poses(config.driving)
    else:
        check_detector(config.driving.detector)
        _video_indices(config.driving, config.driving.video)
    backbone = load_pipeline(config).backbone
    backbone.check_size(frame_size(config, backbone))
    backbone.check_frames(config.driving.frames, "driving.frames")


def generate(config: GenerateConfig) -> PoseSequence:
    """Generate and write the video; returns the poses that it was asked to follow.

    Raises UserError as `check_generation`, and where files cannot be written or nobody is found.
    """
    _make_folders(config)
    source = driving_poses(config.driving)
    pipeline = load_pipeline(config)
    poses = framed(source, frame_size(config, pipeline.backbone), config.driving.framing)
    frames = generate_frames(pipeline, config, poses)
    write_video(config.output, frames, poses.fps)
    _settings_file(config).write_text(resolved_yaml(config), encoding="utf-8")
    if config.poses_output is not None:
        poses.save(config.poses_output)
    return poses


def generate_frames(
    pipeline: PoseToVideoPipeline, config: GenerateConfig, poses: PoseSequence
) -> NDArray[np.uint8]:
    """Frames uint8 (F, H, W, 3) of the size of `poses`, which are in pixels of the result."""
    result = pipeline(
        config.prompt,
        poses,
        width=poses.width,
        height=poses.height,
        negative_prompt=config.sampling.negative_prompt,
        num_inference_steps=config.sampling.steps,
        guidance_scale=config.sampling.guidance_scale,
        control_scale=config.control.scale,
        control_start=config.control.start,
        control_end=config.control.end,
        # On the CPU, so that a seed gives the same noise on every device.
        generator=torch.Generator().manual_seed(config.sampling.seed),
    )
    return np.round(np.asarray(result.frames[0]) * 255).astype(np.uint8)


def load_pipeline(config: GenerateConfig) -> PoseToVideoPipeline:
    """Backbone and side network on the configured device; UserError where they do not fit."""
    cuda = config.device != "cpu" and torch.cuda.is_available()
    backbone = open_backbone(config.backbone, getattr(torch, config.dtype))
    side_network = load_side_network(config.side_network)
    cast(side_network, backbone.dtype)
    pipeline = PoseToVideoPipeline.from_backbone(backbone, side_network)
    if config.lora is not None:
        load_lora(backbone.main_network, config.lora, backbone.network_name)
    pipeline.to("cuda" if cuda else "cpu")
    networks = (backbone.main_network, side_network)
    print(use_attention(config.attention, networks, backbone.dtype, training=False))
    return pipeline


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
    """The poses of the chosen frames, in pixels of the source; fps is that of the result.

    Raises UserError where the source cannot be read, is too short, or shows nobody.
    """
    if driving.poses is not None:
        path, source = driving.poses, PoseSequence.load(driving.poses, require_people=True)
        poses = source.frames(frame_indices(driving, len(source), source.fps, path))
    else:
        assert driving.video is not None
        path, poses = driving.video, _detected(driving, driving.video)
    if not poses.keypoints[..., 2].any():
        raise UserError(f"{path}: nobody in the frames chosen, see driving.start and driving.fps")
    return replace(poses, fps=driving.fps or poses.fps)


def frame_indices(driving: DrivingConfig, length: int, fps: float, path: Path) -> list[int]:
    """Source frames to follow; raises UserError where the source has too few of them."""
    step = 1.0 if driving.fps is None else fps / driving.fps
    indices = [driving.start + round(index * step) for index in range(driving.frames)]
    if indices[-1] >= length:
        raise UserError(
            f"{path}: has {length} frames, and {driving.frames} frames from driving.start="
            f"{driving.start} at {driving.fps or fps:g} fps reach to frame {indices[-1]}"
        )
    return indices


def _detected(driving: DrivingConfig, path: Path) -> PoseSequence:
    video = read_video(path, _video_indices(driving, path))
    return detect_poses(video.frames, video.fps, build_detector(driving.detector))


def _video_indices(driving: DrivingConfig, path: Path) -> list[int]:
    info = probe_video(path)
    return frame_indices(driving, info.frames, info.fps, path)


def _outputs(config: GenerateConfig) -> Sequence[Path]:
    files = [config.output, _settings_file(config)]
    return files if config.poses_output is None else [*files, config.poses_output]


def _make_folders(config: GenerateConfig) -> None:
    for folder in {path.parent for path in _outputs(config)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make this folder: {error.strerror}") from None


def _settings_file(config: GenerateConfig) -> Path:
    return config.output.with_suffix(".yaml")
