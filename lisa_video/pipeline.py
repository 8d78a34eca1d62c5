"""Pose-controlled generation as a diffusers pipeline.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells, L tokens, D text width.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNetMotionModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import Self

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.errors import UserError
from lisa_video.loading import cast
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.side_network import TemporalSideNetwork, load_side_network

OutputType = Literal["np", "pt", "latent"]
StepCallback = Callable[["PoseToVideoPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class PoseToVideoOutput(BaseOutput):
    """Generated clips."""

    frames: np.ndarray | Tensor
    """By output type: "np" float32 (B, F, H, W, 3) and "pt" float32 (B, F, 3, H, W), both in
    [0, 1]; "latent" scaled latents (B, C, F, h, w)."""


class PoseToVideoPipeline(DiffusionPipeline):
    """AnimateDiff with a temporal side network: drawn poses and a prompt become a video."""

    # The side network takes turns with the UNet at each step, so that it stays out of the sequence.
    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNetMotionModel,
        scheduler: SchedulerMixin,
        side_network: TemporalSideNetwork,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            side_network=side_network,
        )

    @classmethod
    def from_backbone(
        cls, backbone: AnimateDiffBackbone, side_network: TemporalSideNetwork
    ) -> Self:
        """A pipeline over the same models, with a scheduler of its own.

        Raises UserError where the side network was made for another backbone.
        """
        side_network.check_backbone(backbone)
        return cls(
            vae=backbone.vae,
            text_encoder=backbone.text_encoder,
            tokenizer=backbone.tokenizer,
            unet=backbone.unet,
            scheduler=backbone.scheduler.from_config(backbone.scheduler.config),
            side_network=side_network,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        side_network: str | PathLike[str] | TemporalSideNetwork | None = None,
        **options: Any,
    ) -> Self:
        """An AnimateDiff checkpoint and a side network for it, or a saved pipeline of this class.

        With `side_network`, a folder, hub name or model, `path` and `options` are those of
        `AnimateDiffBackbone.from_pretrained`, whose `dtype` the side network then takes as well.
        Without, `path` holds what `save_pretrained` wrote and `options` are those of diffusers.
        """
        if side_network is None:
            return super().from_pretrained(path, **options)
        backbone = AnimateDiffBackbone.from_pretrained(path, **options)
        if not isinstance(side_network, TemporalSideNetwork):
            side_network = load_side_network(side_network)
        cast(side_network, backbone.dtype)
        return cls.from_backbone(backbone, side_network)

    @property
    def backbone(self) -> AnimateDiffBackbone:
        """The adapter around the pipeline's present models and scheduler."""
        return AnimateDiffBackbone(
            self.unet, self.vae, self.text_encoder, self.tokenizer, self.scheduler
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        pose_frames: Tensor | PoseSequence,
        *,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: str | list[str] = "",
        num_inference_steps: int = 25,
        guidance_scale: float = 3.0,
        control_scale: float = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: OutputType = "np",
        callback_on_step_end: StepCallback | None = None,
    ) -> PoseToVideoOutput:
        """Generate one clip for each prompt and pose sequence; one of either serves them all.

        - `pose_frames`: drawn poses (B, F, 3, H, W) in [0, 1], which give the length and the size,
          or one pose sequence, which gives the length;
        - `height`, `width`: in pixels, of a pose sequence's drawings; by default the size that the
          backbone was trained at. The sequence is stretched to it;
        - `negative_prompt`: what guidance steers away from;
        - `guidance_scale`: of the text, classifier-free; at most 1 is no guidance. Both halves see
          the poses;
        - `control_scale`: factor of the residuals; 0 is the backbone alone;
        - `control_start`, `control_end`: the share of the steps between which poses control;
        - `latents`: the initial noise (B, C, F, h, w) in place of `generator`'s;
        - `callback_on_step_end`: called with (pipeline, step, timestep, {"latents": ...}) after
          each step; latents in the returned dict replace the pipeline's.

        Raises UserError where these do not fit together or the models.
        """
        backbone, device = self.backbone, self._execution_device
        _check_settings(num_inference_steps, control_start, control_end, output_type)
        if isinstance(pose_frames, PoseSequence):
            own_width, own_height = backbone.frame_size
            pose_frames = _drawn(pose_frames, (width or own_width, height or own_height))
        _check_pose_frames(backbone, pose_frames)
        batch = _batch_size(prompt, pose_frames)
        pose_frames = pose_frames.expand(batch, -1, -1, -1, -1)
        pose_frames = pose_frames.to(device, self.side_network.dtype)
        text = backbone.encode_text(_repeated(prompt, batch, "prompt"))
        guided = guidance_scale > 1
        if guided:
            negative = backbone.encode_text(_repeated(negative_prompt, batch, "negative_prompt"))
            text = torch.cat([negative, text])
            pose_frames = torch.cat([pose_frames, pose_frames])

        self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = self.scheduler.timesteps
        latents = self._initial_latents(
            backbone, pose_frames, batch, text.dtype, generator, latents
        )
        for index, timestep in enumerate(self.progress_bar(timesteps)):
            controlled = (
                control_start <= index / len(timesteps)
                and (index + 1) / len(timesteps) <= control_end
            )
            noisy = self.scheduler.scale_model_input(
                torch.cat([latents, latents]) if guided else latents, timestep
            )
            prediction = self._predict(
                backbone,
                noisy,
                timestep.expand(len(noisy)),
                text,
                pose_frames,
                control_scale if controlled else 0.0,
            )
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + guidance_scale * (with_text - without)
            latents = self.scheduler.step(
                prediction, timestep, latents, **self._step_options(generator)
            ).prev_sample
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, index, timestep, {"latents": latents})
                latents = changed.get("latents", latents)

        frames = latents if output_type == "latent" else backbone.decode_video(latents) / 2 + 0.5
        self.maybe_free_model_hooks()
        if output_type == "np":
            return PoseToVideoOutput(rearrange(frames, "b f c h w -> b f h w c").cpu().numpy())
        return PoseToVideoOutput(frames)

    def _predict(
        self,
        backbone: AnimateDiffBackbone,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pose_frames: Tensor,
        control_scale: float,
    ) -> Tensor:
        if control_scale == 0:
            return backbone.predict(noisy, timesteps, text)
        dtype = self.side_network.dtype
        side = self.side_network(noisy.to(dtype), timesteps, text.to(dtype), pose_frames)
        residuals = side.residuals.scaled(control_scale).to(noisy.dtype)
        return backbone.predict(noisy, timesteps, text, residuals)

    def _initial_latents(
        self,
        backbone: AnimateDiffBackbone,
        pose_frames: Tensor,
        batch: int,
        dtype: torch.dtype,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
    ) -> Tensor:
        _, frames, _, height, width = pose_frames.shape
        factor = backbone.vae_scale_factor
        shape = (batch, backbone.latent_channels, frames, height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(shape, generator, self._execution_device, dtype)
        elif latents.shape != shape:
            raise UserError(f"latents {tuple(latents.shape)}: these pose frames need {shape}")
        return latents.to(self._execution_device, dtype) * self.scheduler.init_noise_sigma

    def _step_options(self, generator: object) -> dict[str, object]:
        """Samplers that draw noise at each step take the generator, the others do not."""
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        return {"generator": generator} if takes_generator else {}


def _drawn(poses: PoseSequence, size: tuple[int, int]) -> Tensor:
    """Pose frames (1, F, 3, H, W) of `size` (width, height)."""
    frames = draw_pose_frames(poses.keypoints, (poses.width, poses.height), size)
    return torch.from_numpy(frames)[None]


def _check_settings(steps: int, start: float, end: float, output_type: str) -> None:
    if steps < 1:
        raise UserError(f"num_inference_steps={steps}: must be at least 1")
    if not 0 <= start <= end <= 1:
        raise UserError(
            f"control_start={start}, control_end={end}: shares of the steps, 0 <= start <= end <= 1"
        )
    if output_type not in ("np", "pt", "latent"):
        raise UserError(f"output_type '{output_type}' is not one of np, pt and latent")


def _check_pose_frames(backbone: AnimateDiffBackbone, pose_frames: Tensor) -> None:
    shape, factor = tuple(pose_frames.shape), backbone.vae_scale_factor
    if len(shape) != 5 or shape[2] != 3:
        raise UserError(f"pose frames {shape}: expected (batch, frames, 3, height, width)")
    if shape[3] % factor or shape[4] % factor:
        raise UserError(
            f"{shape[4]}x{shape[3]} pixels: width and height must be multiples of {factor}"
        )
    if not 1 <= shape[1] <= backbone.max_frames:
        raise UserError(
            f"{shape[1]} frames: this backbone makes between 1 and {backbone.max_frames} at once"
        )


def _batch_size(prompt: str | list[str], pose_frames: Tensor) -> int:
    prompts, sequences = 1 if isinstance(prompt, str) else len(prompt), len(pose_frames)
    if prompts != sequences and 1 not in (prompts, sequences):
        raise UserError(f"{prompts} prompts and {sequences} pose sequences: give as many, or one")
    return max(prompts, sequences)


def _repeated(prompts: str | list[str], batch: int, name: str) -> list[str]:
    texts = [prompts] if isinstance(prompts, str) else prompts
    if len(texts) not in (1, batch):
        raise UserError(f"{name}: {len(texts)} texts for {batch} clips, give as many, or one")
    return texts * (batch // len(texts))
