"""Generate a video from poses or a driving video, and a prompt.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray

from lisa_video.adapters import load_lora, remove_lora
from lisa_video.attention import use_attention
from lisa_video.backbones import load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import resolved_yaml
from lisa_video.condition_config import ConditionKind
from lisa_video.driving_conditions import check_conditions, driver_conditions
from lisa_video.driving_source import check_driving, fitted_driver
from lisa_video.errors import UserError
from lisa_video.generation_config import GenerateConfig
from lisa_video.loading import cast
from lisa_video.long_video.prompts import travel_weights
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.pipeline.control import frame_scales
from lisa_video.pipeline.request import fitting_frames, window_plan
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import framed
from lisa_video.reports import write_json
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.setup import open_backbone
from lisa_video.video import write_video


def check_generation(config: GenerateConfig) -> None:
    """Raises UserError for what can be told before detecting and generating; writes nothing."""
    for path in _outputs(config):
        if path.exists():
            raise UserError(f"{path}: exists already; give another name or remove it first")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    frames = check_driving(config.driving)
    pipeline = load_pipeline(config)
    check_conditions(config.driving, condition_kinds(pipeline))
    check_against_backbone(config, pipeline.backbone, frames)


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
    write_video(config.output, generate_frames(pipeline, config, driver.poses), poses.fps)
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
    """Frames uint8 (H, W, 3), one by one; `poses` are in pixels of the driver. `on_step` is called
    with the number of steps that are done, after each. Raises UserError as `driver_conditions`."""
    width, height = size = frame_size(config, pipeline.backbone)
    kinds = condition_kinds(pipeline)
    conditions = driver_conditions(config.driving, kinds, poses, size)

    def step_ended(_: object, step: int, timestep: object, tensors: dict) -> dict:
        on_step(step + 1)
        return tensors

    return pipeline.stream(
        config.travel() if config.later_prompts else config.prompt,
        conditions if len(kinds) > 1 else conditions[0],
        width=width,
        height=height,
        negative_prompt=config.sampling.negative_prompt,
        num_inference_steps=config.sampling.steps,
        guidance_scale=config.sampling.guidance_scale,
        control_scale=config.control.scales(len(kinds)),
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
    """Backbone, unless one is given, and side networks on the configured device; UserError where they
    do not fit."""
    cuda = config.device != "cpu" and torch.cuda.is_available()
    backbone = backbone or open_backbone(config.backbone, getattr(torch, config.dtype))
    side_networks = [_side_network(folder, backbone) for folder in config.side_networks]
    several = len(side_networks) > 1
    pipeline = PoseToVideoPipeline.from_backbone(
        backbone, side_networks if several else side_networks[0]
    )
    remove_lora(backbone.main_network)  # of an earlier pipeline over the same backbone
    if config.lora is not None:
        load_lora(backbone.main_network, config.lora, backbone.network_name)
    if config.sampling.scheduler is not None:
        pipeline.scheduler = scheduler_of(config.sampling.scheduler, backbone)
    if config.vae_tiling:
        pipeline.enable_vae_tiling()
    place(pipeline, config.offload, "cuda" if cuda else "cpu")
    networks = (backbone.main_network, *side_networks)
    print(use_attention(config.attention, networks, backbone.dtype, training=False))
    return pipeline


def condition_kinds(pipeline: PoseToVideoPipeline) -> list[ConditionKind]:
    """What each side network is steered by."""
    return [network.config.condition for network in pipeline.side_networks]


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


def _side_network(folder: str, backbone: VideoBackbone) -> SideNetwork:
    try:
        network = load_side_network(folder)
        network.check_backbone(backbone)
    except UserError as error:
        message = str(error)
        raise UserError(message if folder in message else f"{folder}: {message}") from None
    cast(network, backbone.dtype)
    return network


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
