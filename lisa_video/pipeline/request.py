"""The arguments of a generation, checked against each other and the models, and made ready.

Shapes: B batch, C latent channels, F video frames, T latent frames, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.long_video.noise import rescheduled
from lisa_video.long_video.settings import WindowSettings
from lisa_video.long_video.windows import WindowPlan
from lisa_video.pipeline.control import Control, ControlPlan, ControlScale, frame_scales
from lisa_video.pipeline.outputs import OUTPUT_TYPES
from lisa_video.pipeline.poses import EncodedPoses, PoseFrames
from lisa_video.pipeline.sampling import Generators, Sampler
from lisa_video.pipeline.text import Prompt, TextStates, clips_asked_for, encoded_prompts
from lisa_video.poses import PoseSequence
from lisa_video.side_networks.base import SideNetwork

Poses = Tensor | PoseSequence


@dataclass(frozen=True)
class Request:
    """What is denoised, and how."""

    backbone: VideoBackbone
    text: TextStates
    control: ControlPlan
    share_control: bool
    """The side networks read the prompt alone, for both halves of guidance."""
    windows: WindowPlan
    sampler: Sampler
    latents: Tensor
    """Initial noise (B, C, T, h, w), float32 in every precision: samplers add up many small steps.
    On the CPU where there is more than one window."""
    frames: int
    """F of the result; the latents may hold more."""


def prepare(
    backbone: VideoBackbone,
    side_networks: Sequence[SideNetwork],
    scheduler: SchedulerMixin,
    device: torch.device,
    *,
    prompt: Prompt,
    poses: Sequence[Tensor | PoseSequence],
    size: tuple[int, int] | None,
    negative_prompt: str | list[str],
    embeds: tuple[Tensor | None, Tensor | None],
    steps: int,
    guided: bool,
    scales: ControlScale | Sequence[ControlScale],
    span: tuple[float, float],
    share_control: bool,
    window: WindowSettings | None,
    generator: Generators,
    latents: Tensor | None,
    output_type: str,
) -> Request:
    """As the pipeline's call has them; raises UserError where they do not fit together."""
    if steps < 1:
        raise UserError(f"num_inference_steps={steps}: must be at least 1")
    if output_type not in OUTPUT_TYPES:
        raise UserError(f"output_type '{output_type}' is not one of {', '.join(OUTPUT_TYPES)}")
    drawn = [PoseFrames(each, size or backbone.frame_size) for each in poses]
    _check_poses(backbone, drawn, len(side_networks))
    frames = drawn[0].frames
    padded = fitting_frames(backbone, frames, window)
    windows = window_plan(backbone, padded, window)
    batch = clips_asked_for(prompt, embeds[0], max(each.batch for each in drawn))
    # What is denoised in windows may be long: only windows of it are on the device.
    held = device if windows.length >= windows.frames else torch.device("cpu")
    sampler = Sampler(scheduler, steps, held, backbone.latent_layout, generator)
    shape = _latent_shape(backbone, batch, windows.frames, drawn[0].size)
    noise = _noise(backbone, shape, held, generator) if latents is None else latents
    if tuple(noise.shape) != shape:
        raise UserError(f"latents {tuple(noise.shape)}: these pose frames need {shape}")
    if window is not None and window.noise == "freenoise" and latents is None:
        order = generator[0] if isinstance(generator, list) else generator
        noise = rescheduled(noise, windows.length, windows.stride, order)
    controls = [
        Control(network, EncodedPoses(backbone, network, each, batch, device), own)
        for network, each, own in zip(
            side_networks,
            drawn,
            _scales(backbone, scales, len(side_networks), frames, padded),
            strict=True,
        )
    ]
    return Request(
        backbone=backbone,
        text=encoded_prompts(
            backbone,
            prompt,
            negative_prompt,
            embeds,
            batch=batch,
            frames=padded,
            guided=guided,
            device=device,
        ),
        control=ControlPlan(controls, *span),
        share_control=share_control,
        windows=windows,
        sampler=sampler,
        latents=noise.to(held, torch.float32) * sampler.initial_sigma,
        frames=frames,
    )


def fitting_frames(backbone: VideoBackbone, frames: int, window: WindowSettings | None) -> int:
    """Video frames to generate for a result of `frames`: with windows, the next length that the
    VAE has. Raises UserError where a clip or a window of this length does not fit the backbone."""
    if window is None:
        backbone.check_frames(frames)
        return frames
    step = backbone.frame_step
    padded = frames + (1 - frames) % step
    if padded > window.frames:
        backbone.check_frames(window.frames, "window.frames")
    else:
        backbone.check_frames(padded)
    return padded


def window_plan(backbone: VideoBackbone, frames: int, window: WindowSettings | None) -> WindowPlan:
    """The windows, in latent frames, of a video of `frames` frames; one where there is no window."""
    latent_frames = backbone.latent_frames(frames)
    if window is None or frames <= window.frames:
        return WindowPlan(latent_frames, latent_frames, 0)
    lead = 0 if backbone.frames_per_latent == 1 else 1
    overlap = max(lead, -(-window.overlap // backbone.frames_per_latent))
    length = backbone.latent_frames(window.frames)
    if overlap >= length:
        raise UserError(
            f"window: {window.frames} frames are {length} latent frames, and an overlap of "
            f"{window.overlap} takes {overlap} of them; take longer windows or a smaller overlap"
        )
    return WindowPlan(latent_frames, length, overlap, lead)


def listed(poses: Poses | Sequence[Poses] | None, group: bool) -> list[Poses]:
    """The poses of each side network; UserError where there are none, or a list for one network."""
    if poses is None:
        raise UserError("pose_frames: give drawn poses or a pose sequence")
    if isinstance(poses, (Tensor, PoseSequence)):
        return [poses]
    if not group:
        raise UserError("pose_frames: a list of poses needs as many side networks")
    return list(poses)


def frame_count(poses: Poses) -> int:
    """F."""
    return poses.shape[1] if isinstance(poses, Tensor) else len(poses)


def check_tensors(asked: Sequence[str], known: Sequence[str]) -> None:
    """Raise UserError where a callback wants what there is not."""
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UserError(
            f"callback_on_step_end_tensor_inputs: no '{unknown[0]}', there are {', '.join(known)}"
        )


def _check_poses(backbone: VideoBackbone, drawn: Sequence[PoseFrames], networks: int) -> None:
    if len(drawn) != networks:
        raise UserError(f"{len(drawn)} pose_frames for {networks} side networks: give as many")
    for each in drawn:
        backbone.check_size(each.size, "width and height")
    shapes = {(each.frames, each.size) for each in drawn}
    if len(shapes) > 1:
        listed = "; ".join(f"{frames} frames, {w}x{h}" for frames, (w, h) in sorted(shapes))
        raise UserError(f"pose_frames of several side networks must agree: {listed}")


def _scales(
    backbone: VideoBackbone,
    scales: ControlScale | Sequence[ControlScale],
    networks: int,
    frames: int,
    padded: int,
) -> list[Tensor]:
    """The scales (T,) of each side network."""
    own: Any = scales
    if networks == 1 or isinstance(scales, (int, float)):
        own = [scales] * networks
    elif len(scales) != networks:
        raise UserError(f"control_scale: {len(scales)} for {networks} side networks")
    return [frame_scales(backbone, each, frames, padded) for each in own]


def _latent_shape(
    backbone: VideoBackbone, batch: int, latent_frames: int, size: tuple[int, int]
) -> tuple[int, ...]:
    width, height = (side // backbone.vae_scale_factor for side in size)
    return batch, backbone.latent_channels, latent_frames, height, width


def _noise(
    backbone: VideoBackbone, shape: tuple[int, ...], device: torch.device, generator: Generators
) -> Tensor:
    """In the order in which diffusers' own pipeline draws it."""
    for each in generator if isinstance(generator, list) else [generator]:
        if each is not None and each.device.type not in ("cpu", device.type):
            raise UserError(
                f"generator on {each.device}: the noise of windows is drawn on the CPU, give a "
                "generator of the CPU"
            )
    axes = dict(zip("bcthw", shape, strict=True))
    layout = backbone.latent_layout
    noise = randn_tensor(
        tuple(axes[axis] for axis in layout.split()), generator, device, torch.float32
    )
    return rearrange(noise, f"{layout} -> b c t h w")
