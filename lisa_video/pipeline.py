"""Pose-controlled generation as a diffusers pipeline.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from lisa_video.backbones import backbone_class, load_backbone, load_side_network
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.loading import cast
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.side_networks.base import SideNetwork

OutputType = Literal["np", "pt", "latent"]
StepCallback = Callable[["PoseToVideoPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class PoseToVideoOutput(BaseOutput):
    """Generated clips."""

    frames: np.ndarray | Tensor
    """By output type: "np" float32 (B, F, H, W, 3) and "pt" float32 (B, F, 3, H, W), both in
    [0, 1]; "latent" normalised latents (B, C, T, h, w)."""


class PoseToVideoPipeline(DiffusionPipeline):
    """A backbone with a side network of its kind: drawn poses and a prompt become a video.

    The parts are those of the backbone, `kind` its name in the table of backbones.
    """

    # The side network takes turns with the main network at each step, and stays out of the sequence.
    model_cpu_offload_seq = "text_encoder->main_network->vae"

    def __init__(
        self,
        main_network: ModelMixin,
        vae: ModelMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        side_network: SideNetwork,
        kind: str = "animatediff",
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
        self.register_to_config(kind=kind)

    @classmethod
    def from_backbone(cls, backbone: VideoBackbone, side_network: SideNetwork) -> Self:
        """A pipeline over the same models, with a scheduler of its own.

        Raises UserError where the side network was made for another backbone.
        """
        side_network.check_backbone(backbone)
        return cls(
            main_network=backbone.main_network,
            vae=backbone.vae,
            text_encoder=backbone.text_encoder,
            tokenizer=backbone.tokenizer,
            scheduler=backbone.scheduler.from_config(backbone.scheduler.config),
            side_network=side_network,
            kind=backbone.kind,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        side_network: str | PathLike[str] | SideNetwork | None = None,
        kind: str = "animatediff",
        **options: Any,
    ) -> Self:
        """A backbone's checkpoint and a side network for it, or a saved pipeline of this class.

        With `side_network`, a folder, hub name or model, the arguments are those of
        `load_backbone`, and the side network takes the `dtype` among them as well. Without, `path`
        holds what `save_pretrained` wrote and `options` are those of diffusers.
        """
        if side_network is None:
            return super().from_pretrained(path, **options)
        backbone = load_backbone(kind, path, **options)
        if not isinstance(side_network, SideNetwork):
            side_network = load_side_network(side_network)
        cast(side_network, backbone.dtype)
        return cls.from_backbone(backbone, side_network)

    @property
    def backbone(self) -> VideoBackbone:
        """The adapter around the pipeline's present models and scheduler."""
        return backbone_class(self.config.kind)(
            self.main_network, self.vae, self.text_encoder, self.tokenizer, self.scheduler
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
        - `latents`: the initial noise (B, C, T, h, w) in place of `generator`'s;
        - `callback_on_step_end`: called with (pipeline, step, timestep, {"latents": ...}) after
          each step; latents in the returned dict replace the pipeline's.

        Raises UserError where these do not fit together or the models.
        """
        backbone, device = self.backbone, self._execution_device
        _check_settings(num_inference_steps, control_start, control_end, output_type)
        if isinstance(pose_frames, PoseSequence):
            pose_frames = _drawn(pose_frames, _frame_size(backbone, width, height))
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
        latents = self._initial_latents(backbone, pose_frames, batch, generator, latents)
        for index, timestep in enumerate(self.progress_bar(timesteps)):
            controlled = (
                control_start <= index / len(timesteps)
                and (index + 1) / len(timesteps) <= control_end
            )
            noisy = self._scaled(torch.cat([latents, latents]) if guided else latents, timestep)
            prediction = self._predict(
                backbone,
                noisy.to(text.dtype),
                timestep.expand(len(noisy)),
                text,
                pose_frames,
                control_scale if controlled else 0.0,
            )
            prediction = prediction.float()
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
        backbone: VideoBackbone,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pose_frames: Tensor,
        control_scale: float,
    ) -> Tensor:
        if control_scale == 0:
            return backbone.predict(noisy, timesteps, text)
        side = backbone.side_output(
            self.side_network, noisy.to(self.side_network.dtype), timesteps, text, pose_frames
        )
        residuals = side.residuals.scaled(control_scale).to(noisy.dtype)
        return backbone.predict(noisy, timesteps, text, residuals)

    def _initial_latents(
        self,
        backbone: VideoBackbone,
        pose_frames: Tensor,
        batch: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
    ) -> Tensor:
        """float32 in every precision: samplers add up many small steps."""
        _, frames, _, height, width = pose_frames.shape
        factor, latent_frames = backbone.vae_scale_factor, backbone.latent_frames(frames)
        shape = (batch, backbone.latent_channels, latent_frames, height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(shape, generator, self._execution_device, torch.float32)
        elif latents.shape != shape:
            raise UserError(f"latents {tuple(latents.shape)}: these pose frames need {shape}")
        # Samplers of flow matching start from plain noise and name no factor.
        sigma = getattr(self.scheduler, "init_noise_sigma", 1.0)
        return latents.to(self._execution_device, torch.float32) * sigma

    def _scaled(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Samplers of flow matching do not scale the network's input, nor have a method for it."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return latents
        scaled: Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

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


def _check_pose_frames(backbone: VideoBackbone, pose_frames: Tensor) -> None:
    shape = tuple(pose_frames.shape)
    if len(shape) != 5 or shape[2] != 3:
        raise UserError(f"pose frames {shape}: expected (batch, frames, 3, height, width)")
    backbone.check_size((shape[4], shape[3]), "width and height")
    backbone.check_frames(shape[1])


def _frame_size(backbone: VideoBackbone, width: int | None, height: int | None) -> tuple[int, int]:
    own_width, own_height = backbone.frame_size or (None, None)
    width, height = width or own_width, height or own_height
    if width is None or height is None:
        raise UserError(
            f"give width and height: a backbone of kind {backbone.kind} does not say its own"
        )
    return width, height


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
