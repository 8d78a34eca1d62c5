"""AnimateDiff as main network: a thin adapter around an unmodified diffusers checkpoint.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, ClassVar

import torch
from diffusers import (
    AnimateDiffPipeline,
    DiffusionPipeline,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from einops import rearrange, repeat
from torch import Tensor, nn
from typing_extensions import Self

from lisa_video.adapters import adapted_layers, without_lora
from lisa_video.backbones.base import VideoBackbone
from lisa_video.checkpointing import make_motion_checkpointable
from lisa_video.encoders import load_components
from lisa_video.errors import UserError
from lisa_video.injection import MID, InjectionPoint, SideResiduals, clip_rows, unet_points
from lisa_video.loading import (
    ComponentTable,
    first_line,
    libraries_silent,
    load_pretrained,
)
from lisa_video.offloading import execution_device
from lisa_video.predictions import PredictionType
from lisa_video.side_networks.base import SideNetwork, SideOutput
from lisa_video.side_networks.unet import UNetSideNetwork

FRAMES_AT_ONCE = 16  # through the VAE, which sees single images
AFTER_CONTROL = ("up_blocks.", "conv_out")


class AnimateDiffBackbone(VideoBackbone):
    """A frozen motion UNet with its VAE, text encoder, tokenizer and noise schedule.

    Raises UserError where the parts are no AnimateDiff checkpoint that can be steered: a schedule
    without `alphas_cumprod`, a prediction type other than epsilon, v_prediction or sample, a UNet
    that needs more than latents and text (SDXL, PIA), or no `UNetMotionModel`.
    """

    kind: ClassVar[str] = "animatediff"
    components: ClassVar[ComponentTable] = {
        "unet": ("diffusers", ("UNetMotionModel", "UNet2DConditionModel")),
        "vae": ("diffusers", ("AutoencoderKL",)),
        "text_encoder": ("transformers", ("CLIPTextModel",)),
        "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
        "scheduler": ("diffusers", None),
    }
    prediction_types: ClassVar[tuple[PredictionType, ...]] = ("epsilon", "v_prediction", "sample")
    side_network_class: ClassVar[type[SideNetwork]] = UNetSideNetwork
    pipeline_class: ClassVar[type[DiffusionPipeline]] = AnimateDiffPipeline

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        motion_adapter: str | PathLike[str] | None = None,
        beta_schedule: str | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
        encoders_later: bool = False,
    ) -> Self:
        """Load from a diffusers folder or hub name; weights are read from safetensors only.

        `path` holds an AnimateDiff checkpoint (its UNet is a `UNetMotionModel`), or a Stable
        Diffusion 1.5 one, into whose UNet `motion_adapter`, again a folder or hub name, is then
        built. `beta_schedule` replaces the scheduler's: the released motion adapters were trained
        with "linear", Stable Diffusion with "scaled_linear". The others are those of the base.
        """
        hub = {"revision": revision, "local_files_only": local_files_only}
        unet, vae, text_encoder, tokenizer, scheduler = load_components(
            path, cls.components, hub, encoders_later=encoders_later
        )
        if isinstance(unet, UNet2DConditionModel):
            unet = _with_motion(path, unet, motion_adapter, local_files_only)
        if beta_schedule is not None:
            scheduler = scheduler.from_config(scheduler.config, beta_schedule=beta_schedule)
        return cls(unet, vae, text_encoder, tokenizer, scheduler).to(dtype=dtype)

    def _check_parts(self) -> None:
        # torch.compile stands in for the model that it compiles.
        unet = getattr(self.main_network, "_orig_mod", self.main_network)
        vae_channels = self.vae_config.latent_channels
        if not isinstance(unet, UNetMotionModel):
            raise UserError(f"unet is a {type(unet).__name__}, AnimateDiff needs a UNetMotionModel")
        if unet.config.addition_embed_type is not None:
            raise UserError(
                "this UNet wants added embeddings (SDXL): only Stable Diffusion 1.x fits"
            )
        if unet.config.in_channels != vae_channels:
            raise UserError(
                f"the UNet takes {unet.config.in_channels} channels and the VAE makes "
                f"{vae_channels}: they are not of one checkpoint, or of another method"
            )

    def _all_points(self) -> Mapping[str, InjectionPoint]:
        return unet_points(self.main_network.config)

    # What it is.

    @property
    def latent_channels(self) -> int:
        return int(self.main_network.config.in_channels)

    @property
    def vae_scale_factor(self) -> int:
        return 1 << len(self.vae_config.block_out_channels) - 1

    @property
    def frame_size(self) -> tuple[int, int]:
        size = self.main_network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return width * self.vae_scale_factor, height * self.vae_scale_factor

    @property
    def max_frames(self) -> int:
        """Most frames that the motion modules can attend to at once."""
        return int(self.main_network.config.motion_max_seq_length)

    # Pixels, latents and text.

    @torch.no_grad()
    def encode_video(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        images = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.device, self.vae.dtype)
        posteriors = [self.vae.encode(some).latent_dist for some in images.split(FRAMES_AT_ONCE)]
        latents = torch.cat(
            [each.mode() if generator is None else each.sample(generator) for each in posteriors]
        )
        latents = latents * self.vae_config.scaling_factor
        return rearrange(latents, "(b f) c h w -> b c f h w", f=pixels.shape[1])

    @torch.no_grad()
    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        frames_at_once = max(1, FRAMES_AT_ONCE // len(latents))
        device = execution_device(self.vae)
        for some in latents.split(frames_at_once, dim=2):
            images = rearrange(some, "b c f h w -> (b f) c h w").to(device, self.vae.dtype)
            pixels = self.vae.decode(images / self.vae_config.scaling_factor).sample.float()
            yield rearrange(pixels, "(b f) c h w -> b f c h w", f=some.shape[2]).clamp(-1, 1)

    @property
    def text_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        device = execution_device(self.text_encoder)
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if uses_mask else None
        states = self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)
        text: Tensor = states.last_hidden_state
        return text

    # Predictions.

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals | None = None,
    ) -> Tensor:
        if residuals is None:
            with without_lora(self.main_network):
                return self._forward(noisy, timesteps, text)
        return self._forward(noisy, timesteps, text, **self._residual_arguments(residuals))

    def _forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor, **residuals: Any) -> Tensor:
        prediction: Tensor = self.main_network(
            noisy,
            timesteps,
            repeat(text, "b l d -> (b f) l d", f=noisy.shape[2]),
            return_dict=False,
            **residuals,
        )[0]
        return prediction

    def predict_with_prior(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals,
        prior_clips: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As the base has it, from one pass of the encoder, for which no graph is kept.

        Control enters a UNet at the skips and after the middle only, so that everything before is
        the same with and without it. The prior is an unmodified forward; the up blocks then run
        again on the arguments that they were called with, residuals added. Where only some clips
        have a prior, the up blocks of that forward see these alone. With adapters before the up
        blocks nothing is the same, and there are two forwards.
        """
        assert residuals.points.keys() <= self.injection_points.keys(), residuals.points.keys()
        if not all(name.startswith(AFTER_CONTROL) for name in adapted_layers(self.main_network)):
            return self._predict_apart(noisy, timesteps, text, residuals, prior_clips)
        calls: list[dict[str, Any]] = []

        def record(
            _block: object, args: tuple[Any, ...], arguments: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            calls.append(arguments)
            if prior_clips is None:
                return None
            # From the second block on, the activation has no other clips any more.
            done = {"hidden_states"} if len(calls) > 1 else set()
            return args, {
                name: value if name in done else _of_clips(value, prior_clips, len(noisy))
                for name, value in arguments.items()
            }

        hooks = [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in self.main_network.up_blocks
        ]
        try:
            with torch.no_grad():
                prior = self.predict(noisy, timesteps, text)
        finally:
            for hook in hooks:
                hook.remove()
        controlled = self._rerun_up_blocks(calls, residuals)
        return rearrange(controlled, "(b f) c h w -> b c f h w", f=noisy.shape[2]), prior

    def side_output(
        self,
        side_network: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        pose_frames: Tensor,
    ) -> SideOutput:
        output: SideOutput = side_network(noisy, timesteps, text.to(noisy.dtype), pose_frames)
        return output

    def enable_gradient_checkpointing(self) -> None:
        make_motion_checkpointable(self.main_network)
        super().enable_gradient_checkpointing()

    def _rerun_up_blocks(self, calls: list[dict[str, Any]], residuals: SideResiduals) -> Tensor:
        """The UNet after its middle block, on recorded arguments plus residuals: (B*F, C, h, w)."""
        unet = self.main_network
        skips = [skip for call in reversed(calls) for skip in call["res_hidden_states_tuple"]]
        skips = [_plus(skip, residuals, f"down_{index}") for index, skip in enumerate(skips)]
        hidden = _plus(calls[0]["hidden_states"], residuals, MID)
        for block, call in zip(unet.up_blocks, calls, strict=True):
            first = len(skips) - len(call["res_hidden_states_tuple"])
            skips, own = skips[:first], tuple(skips[first:])
            hidden = block(**{**call, "hidden_states": hidden, "res_hidden_states_tuple": own})
        if unet.conv_norm_out is not None:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        prediction: Tensor = unet.conv_out(hidden)
        return prediction

    def _residual_arguments(self, residuals: SideResiduals) -> dict[str, Any]:
        """As `UNetMotionModel.forward` wants them: one for each skip, 0 where there is none."""
        points = residuals.points
        assert points.keys() <= self.injection_points.keys(), points.keys()
        # On the residuals' device: the UNet's own weights may be offloaded.
        zero = next(iter(points.values())).new_zeros(())
        return {
            "down_block_additional_residuals": tuple(
                points.get(name, zero) for name in self.injection_points if name != MID
            ),
            "mid_block_additional_residual": points.get(MID),
        }


def _of_clips(value: Any, clips: Tensor, batch: int) -> Any:
    """The rows of some clips, where `value` is or holds tensors (B*F, ...) of all of them."""
    if isinstance(value, tuple):
        return tuple(_of_clips(each, clips, batch) for each in value)
    if isinstance(value, Tensor):
        return clip_rows(value, clips, batch)
    return value


def _plus(activation: Tensor, residuals: SideResiduals, name: str) -> Tensor:
    return activation + residuals.points[name] if name in residuals.points else activation


def _with_motion(
    path: str | PathLike[str],
    unet: UNet2DConditionModel,
    motion_adapter: str | PathLike[str] | None,
    local_files_only: bool,
) -> UNetMotionModel:
    if motion_adapter is None:
        raise UserError(f"{path}: its UNet has no motion modules, name a motion adapter for it")
    adapter = load_pretrained(MotionAdapter, motion_adapter, local_files_only=local_files_only)
    try:
        with libraries_silent():
            return UNetMotionModel.from_unet2d(unet, adapter)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{motion_adapter}: does not fit the UNet of {path}: {first_line(error)}"
        ) from None
