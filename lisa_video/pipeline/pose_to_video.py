"""Pose-controlled generation as a diffusers pipeline.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from lisa_video.backbones import backbone_class, load_backbone, load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.loading import cast as cast_weights
from lisa_video.long_video.settings import WindowSettings
from lisa_video.offloading import bring
from lisa_video.pipeline.control import ControlScale
from lisa_video.pipeline.denoising import Denoising
from lisa_video.pipeline.outputs import OutputType, PoseToVideoOutput, as_bytes, collected
from lisa_video.pipeline.request import (
    Poses,
    Request,
    check_tensors,
    frame_count,
    listed,
    prepare,
)
from lisa_video.pipeline.sampling import Generators
from lisa_video.pipeline.text import Prompt
from lisa_video.side_networks.base import SideNetwork
from lisa_video.side_networks.group import SideNetworkGroup

_log = logging.getLogger(__name__)

StepCallback = Callable[["PoseToVideoPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
SideNetworkSource = str | PathLike[str] | SideNetwork


class PoseToVideoPipeline(DiffusionPipeline):
    """A backbone with a side network of its kind: drawn poses and a prompt become a video.

    The parts are those of the backbone, `kind` its name in the table of backbones, `text_tokens`
    the length that it pads prompts to, where it has one of its own. `side_network` may be a group
    of them, each with poses and a scale of its own, whose residuals are summed.
    """

    # The side network takes turns with the main network at each step, and stays out of the sequence.
    model_cpu_offload_seq = "text_encoder->main_network->vae"
    _callback_tensor_inputs = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(
        self,
        main_network: ModelMixin,
        vae: ModelMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        side_network: SideNetwork | SideNetworkGroup,
        kind: str = "animatediff",
        text_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            main_network=main_network,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
            side_network=side_network,
        )
        self.register_to_config(kind=kind, text_tokens=text_tokens)
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._interrupt = False

    @classmethod
    def from_backbone(
        cls, backbone: VideoBackbone, side_network: SideNetwork | Sequence[SideNetwork]
    ) -> Self:
        """A pipeline over the same models, with a scheduler of its own.

        Raises UserError where a side network was made for another backbone.
        """
        if not isinstance(side_network, SideNetwork):
            side_network = cast(SideNetwork, SideNetworkGroup(side_network))
        side_network.check_backbone(backbone)
        return cls(
            main_network=backbone.main_network,
            vae=backbone.vae,
            text_encoder=backbone.text_encoder,
            tokenizer=backbone.tokenizer,
            scheduler=backbone.scheduler.from_config(backbone.scheduler.config),
            side_network=side_network,
            kind=backbone.kind,
            text_tokens=backbone.text_tokens,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        side_network: SideNetworkSource | Sequence[SideNetworkSource] | None = None,
        kind: str = "animatediff",
        **options: Any,
    ) -> Self:
        """A backbone's checkpoint and a side network for it, or a saved pipeline of this class.

        With `side_network`, a folder, hub name or model, or a list of them, the arguments are those
        of `load_backbone`, and the side network takes the `dtype` among them as well. Without,
        `path` holds what `save_pretrained` wrote and `options` are those of diffusers.
        """
        if side_network is None:
            return super().from_pretrained(path, **options)
        backbone = load_backbone(kind, path, **options)
        several = isinstance(side_network, Sequence) and not isinstance(side_network, str)
        sources = side_network if several else [side_network]
        networks = [
            each if isinstance(each, SideNetwork) else load_side_network(each)
            for each in cast(Sequence[SideNetworkSource], sources)
        ]
        for network in networks:
            cast_weights(network, backbone.dtype)
        return cls.from_backbone(backbone, networks if several else networks[0])

    @property
    def backbone(self) -> VideoBackbone:
        """The adapter around the pipeline's present models and scheduler."""
        backbone = backbone_class(self.config.kind)(
            self.main_network, self.vae, self.text_encoder, self.tokenizer, self.scheduler
        )
        if self.config.text_tokens is not None:
            backbone.text_tokens = self.config.text_tokens
        return backbone

    @property
    def side_networks(self) -> list[SideNetwork]:
        """One, or those of the group, in their order."""
        return [*self.side_network] if self._is_group else [self.side_network]

    @property
    def guidance_scale(self) -> float:
        """That of the present generation; a callback may change `_guidance_scale`."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of the present generation."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` from a callback to leave out the steps that remain."""
        return self._interrupt

    def enable_vae_slicing(self) -> None:
        """Decode the clips of a batch one after the other."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decode the clips of a batch together."""
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        """Decode large frames tile by tile: less memory, and small differences at their borders.

        A VAE that compresses time makes each tile of all frames: a line of the log says so.
        """
        if self.backbone.frames_per_latent > 1:
            _log.warning(
                "warning: VAE tiling on a backbone of kind %s holds the whole decoded video in "
                "memory, tile after tile; without it a few frames are decoded at a time",
                self.config.kind,
            )
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode frames whole."""
        self.vae.disable_tiling()

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt = None,
        pose_frames: Poses | Sequence[Poses] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str | list[str] = "",
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        control_scale: ControlScale | Sequence[ControlScale] = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
        share_control: bool = False,
        window: WindowSettings | None = None,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: OutputType = "np",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> PoseToVideoOutput:
        """Generate one clip for each prompt and pose sequence; one of either serves them all.

        - `prompt`: texts, or prompts for ranges of frames (`PromptTravel`);
        - `pose_frames`: drawn poses (B, F, 3, H, W) in [0, 1], or uint8 up to 255, which give the
          length and the size, or one pose sequence, which gives the length; with several side
          networks one for each;
        - `height`, `width`: in pixels, of a pose sequence's drawings; by default the size that the
          backbone was trained at. The sequence is stretched to it;
        - `negative_prompt`: what guidance steers away from;
        - `guidance_scale`: of the text, classifier-free; at most 1 is no guidance. Both halves see
          the poses;
        - `control_scale`: factor of the residuals, 0 is the backbone alone; or one for each frame.
          With several side networks one of these for each, or one number for all;
        - `control_start`, `control_end`: the share of the steps between which poses control;
        - `share_control`: let the side network read the prompt alone, and both halves of guidance
          take its residuals: half its cost, and another result, if not by much;
        - `window`: denoise in windows of this length, so that F may be any number; None makes all
          frames at once, as many as the backbone takes;
        - `latents`: the initial noise (B, C, T, h, w) in place of `generator`'s;
        - `prompt_embeds`, `negative_prompt_embeds`: encoded texts (B, L, D) in place of words;
        - `callback_on_step_end`: called with (pipeline, step, timestep, tensors) after each step,
          tensors being those named by `callback_on_step_end_tensor_inputs`, or by the callback
          where it is one of diffusers; those in the returned dict replace the pipeline's.

        Raises UserError where these do not fit together or the models.
        """
        request = prepare(
            self.backbone,
            self.side_networks,
            self.scheduler,
            self._execution_device,
            prompt=prompt,
            poses=listed(pose_frames, self._is_group),
            size=None if width is None or height is None else (width, height),
            negative_prompt=negative_prompt,
            embeds=(prompt_embeds, negative_prompt_embeds),
            steps=num_inference_steps,
            guided=guidance_scale > 1,
            scales=control_scale,
            span=(control_start, control_end),
            share_control=share_control,
            window=window,
            generator=generator,
            latents=latents,
            output_type=output_type,
        )
        tensors = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        check_tensors(tensors, self._callback_tensor_inputs)
        latents = self._denoised(request, guidance_scale, callback_on_step_end, tensors)
        try:
            if output_type == "latent":
                return PoseToVideoOutput(latents)
            return collected(request.backbone.decode_chunks(latents), request.frames, output_type)
        finally:
            self.maybe_free_model_hooks()

    def stream(
        self,
        prompt: Prompt = None,
        pose_frames: Poses | Sequence[Poses] | None = None,
        **options: Any,
    ) -> Iterator[NDArray[np.uint8]]:
        """The frames of one clip, uint8 (H, W, 3), one by one while the VAE decodes them.

        Arguments and errors as in a call of the pipeline, which makes all latents first.
        """
        frames = frame_count(listed(pose_frames, self._is_group)[0])
        latents = self(prompt, pose_frames, **options, output_type="latent").frames
        if len(latents) != 1:
            raise UserError(f"stream: makes one clip, and {len(latents)} are asked for")
        return self._frames(cast(Tensor, latents), frames)

    def _frames(self, latents: Tensor, frames: int) -> Iterator[NDArray[np.uint8]]:
        try:
            for chunk in self.backbone.decode_chunks(latents):
                pictures = rearrange(chunk[0], "f c h w -> f h w c")[:frames]
                frames -= len(pictures)
                yield from as_bytes((pictures / 2 + 0.5).cpu().numpy())
        finally:
            self.maybe_free_model_hooks()

    def _denoised(
        self,
        request: Request,
        guidance_scale: float,
        callback: StepCallback | None,
        tensors: Sequence[str],
    ) -> Tensor:
        self._guidance_scale, self._interrupt = guidance_scale, False
        self._num_timesteps = len(request.sampler.timesteps)
        if self._is_group:  # Its hook is on its own forward, and its networks are called apart.
            bring(self.side_network)
        denoising = Denoising(request, self._execution_device)
        for index, timestep in enumerate(self.progress_bar(request.sampler.timesteps)):
            if self._interrupt:
                continue
            denoising.step(index, self._guidance_scale)
            if callback is not None:
                present = denoising.tensors
                given = {name: present[name] for name in tensors if name in present}
                denoising.replace(callback(self, index, timestep, given))
        for hook in getattr(self, "_all_hooks", ()):
            hook.offload()
        return denoising.latents

    @property
    def _is_group(self) -> bool:
        return isinstance(self.side_network, SideNetworkGroup)
