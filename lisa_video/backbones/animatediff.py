"""AnimateDiff as main network: a thin adapter around an unmodified diffusers checkpoint.

Shapes: B batch, F frames, C latent channels, H W pixels, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_args

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from einops import rearrange, repeat
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import Self

from lisa_video.errors import UserError
from lisa_video.injection import MID, InjectionPoint, SideResiduals, injection_points
from lisa_video.loading import cast, check_source, first_line, libraries_silent, load_pretrained
from lisa_video.predictions import PredictionType, shifted_time

# Per component: the library, the classes that model_index.json may name (None: any scheduler).
COMPONENTS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "unet": ("diffusers", ("UNetMotionModel", "UNet2DConditionModel")),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "scheduler": ("diffusers", None),
}
FRAMES_AT_ONCE = 16  # through the VAE, which sees single images


class AnimateDiffBackbone:
    """A frozen motion UNet with its VAE, text encoder, tokenizer and noise schedule.

    The parts are unmodified objects of diffusers and transformers; they are put in eval mode and
    none of their parameters asks for a gradient. `prediction_type` is what the scheduler says the
    UNet predicts, `injection_points` are the places where residuals can be added, by name.

    Raises UserError where the parts are no AnimateDiff checkpoint that can be steered: a schedule
    without `alphas_cumprod`, a prediction type other than epsilon, v_prediction or sample, a UNet
    that needs more than latents and text (SDXL, PIA), or no `UNetMotionModel`.
    """

    def __init__(
        self,
        unet: UNetMotionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: SchedulerMixin,
    ) -> None:
        _check_unet(unet, vae)
        self.unet, self.vae = unet, vae
        self.text_encoder, self.tokenizer, self.scheduler = text_encoder, tokenizer, scheduler
        self.prediction_type = _prediction_type(scheduler)
        self.injection_points: dict[str, InjectionPoint] = injection_points(unet.config)
        for module in (unet, vae, text_encoder):
            module.eval().requires_grad_(False)
        # In float64, since 1 - alphas_cumprod loses digits where it is small.
        alphas = scheduler.alphas_cumprod.double()
        self._signal, self._noise = alphas.sqrt().float(), (1 - alphas).sqrt().float()
        self._fingerprint: str | None = None

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
    ) -> Self:
        """Load from a diffusers folder or hub name; weights are read from safetensors only.

        `path` holds an AnimateDiff checkpoint (its UNet is a `UNetMotionModel`), or a Stable
        Diffusion 1.5 one, into whose UNet `motion_adapter`, again a folder or hub name, is then
        built. `beta_schedule` replaces the scheduler's: the released motion adapters were trained
        with "linear", Stable Diffusion with "scaled_linear". `revision` is a branch, tag or commit
        of `path` on the hub, `local_files_only` never asks the hub.

        Raises UserError where there is nothing loadable, or a component is missing or of another
        class than AnimateDiff's.
        """
        hub = {"revision": revision, "local_files_only": local_files_only}
        index = _model_index(path, hub)
        parts = {name: _load_component(path, name, index.get(name), hub) for name in COMPONENTS}
        if isinstance(parts["unet"], UNet2DConditionModel):
            parts["unet"] = _with_motion(path, parts["unet"], motion_adapter, local_files_only)
        if beta_schedule is not None:
            scheduler = parts["scheduler"]
            parts["scheduler"] = scheduler.from_config(
                scheduler.config, beta_schedule=beta_schedule
            )
        return cls(**parts).to(dtype=dtype)

    # What it is.

    @property
    def latent_channels(self) -> int:
        """C."""
        return int(self.unet.config.in_channels)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell along each axis, a power of 2."""
        return 1 << len(self.vae.config.block_out_channels) - 1

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height in pixels of the video that the UNet was trained on."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return width * self.vae_scale_factor, height * self.vae_scale_factor

    @property
    def max_frames(self) -> int:
        """Most frames that the motion modules can attend to at once."""
        return int(self.unet.config.motion_max_seq_length)

    @property
    def num_timesteps(self) -> int:
        """Timesteps run from 0 to this, exclusive."""
        return len(self._signal)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move and cast every part, and return self. The fingerprint stays that before the cast."""
        if dtype not in (None, self.dtype):
            self._fingerprint = self.fingerprint()
        for module in (self.unet, self.vae, self.text_encoder):
            cast(module, dtype)
            module.to(device=device)
        return self

    def fingerprint(self) -> str:
        """sha256 over the UNet's configuration and float32 weights; side networks remember it."""
        if self._fingerprint is None:
            config = json.dumps(_settings_beside_defaults(self.unet), sort_keys=True)
            digest = hashlib.sha256(config.encode())
            for name, weights in sorted(self.unet.state_dict().items()):
                digest.update(name.encode())
                digest.update(weights.float().cpu().contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    # Pixels, latents and text.

    @torch.no_grad()
    def encode_video(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (B, F, 3, H, W) in [-1, 1] -> scaled latents (B, C, F, h, w).

        The posterior is sampled with `generator`; without one its mode is taken.
        """
        images = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.device, self.vae.dtype)
        posteriors = [self.vae.encode(some).latent_dist for some in images.split(FRAMES_AT_ONCE)]
        latents = torch.cat(
            [each.mode() if generator is None else each.sample(generator) for each in posteriors]
        )
        latents = latents * self.vae.config.scaling_factor
        return rearrange(latents, "(b f) c h w -> b c f h w", f=pixels.shape[1])

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, F, h, w) -> float32 pixels (B, F, 3, H, W) in [-1, 1]."""
        images = rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype)
        images = images / self.vae.config.scaling_factor
        pixels = torch.cat(
            [self.vae.decode(some).sample.float() for some in images.split(FRAMES_AT_ONCE)]
        )
        return rearrange(pixels, "(b f) c h w -> b f c h w", f=latents.shape[2]).clamp(-1, 1)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Prompts -> (B, L, D), L the tokenizer's length: shorter ones padded, longer ones cut."""
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        device = self.text_encoder.device
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if uses_mask else None
        states = self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)
        text: Tensor = states.last_hidden_state
        return text

    # Noise.

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """a and s of x_t = a x_0 + s n at timesteps (B,): two float32 tensors (B, 1, 1, 1, 1)."""
        a, s = (table.to(timesteps.device)[timesteps] for table in (self._signal, self._noise))
        return rearrange(a, "b -> b 1 1 1 1"), rearrange(s, "b -> b 1 1 1 1")

    def sample_timesteps(
        self, batch: int, generator: torch.Generator | None = None, shift: float = 1.0
    ) -> Tensor:
        """Draw timesteps (B,), long, on the backbone's device.

        Uniform at shift 1, towards high noise above, see `predictions.shifted_time`.
        """
        device = None if generator is None else generator.device
        uniform = torch.rand(batch, generator=generator, device=device, dtype=torch.float64)
        timesteps = (
            (shifted_time(uniform, shift) * self.num_timesteps)
            .long()
            .clamp(max=self.num_timesteps - 1)
        )
        return timesteps.to(self.device)

    # Predictions.

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals | None = None,
    ) -> Tensor:
        """One forward of the unmodified UNet: (B, C, F, h, w) in its own parametrisation.

        `noisy` (B, C, F, h, w), `timesteps` (B,), `text` (B, L, D). `residuals` are what the side
        network adds; None gives the prior prediction.
        """
        prediction: Tensor = self.unet(
            noisy,
            timesteps,
            repeat(text, "b l d -> (b f) l d", f=noisy.shape[2]),
            return_dict=False,
            **self._residual_arguments(residuals),
        )[0]
        return prediction

    def predict_with_prior(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, residuals: SideResiduals
    ) -> tuple[Tensor, Tensor]:
        """Controlled and prior prediction, both (B, C, F, h, w), from one pass of the encoder.

        Control enters a UNet at the skips and after the middle only, so that everything before is
        the same with and without it. The prior is an unmodified forward without gradient; the up
        blocks then run again on the arguments that they were called with, residuals added. This is
        exact: equal to `predict` with and without residuals. Gradients flow into the residuals of
        the controlled prediction, and no graph is kept for the encoder. Arguments as `predict`.
        """
        assert residuals.points.keys() <= self.injection_points.keys(), residuals.points.keys()
        calls: list[dict[str, Any]] = []

        def record(_block: object, _args: object, arguments: dict[str, Any]) -> None:
            calls.append(arguments)

        hooks = [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in self.unet.up_blocks
        ]
        try:
            with torch.no_grad():
                prior = self.predict(noisy, timesteps, text)
        finally:
            for hook in hooks:
                hook.remove()
        controlled = self._rerun_up_blocks(calls, residuals)
        return rearrange(controlled, "(b f) c h w -> b c f h w", f=noisy.shape[2]), prior

    def _rerun_up_blocks(self, calls: list[dict[str, Any]], residuals: SideResiduals) -> Tensor:
        """The UNet after its middle block, on recorded arguments plus residuals: (B*F, C, h, w)."""
        unet = self.unet
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

    def _residual_arguments(self, residuals: SideResiduals | None) -> dict[str, Any]:
        """As `UNetMotionModel.forward` wants them: one for each skip, 0 where there is none."""
        if residuals is None:
            return {}
        points = residuals.points
        assert points.keys() <= self.injection_points.keys(), points.keys()
        zero = torch.zeros((), device=self.device, dtype=self.dtype)
        return {
            "down_block_additional_residuals": tuple(
                points.get(name, zero) for name in self.injection_points if name != MID
            ),
            "mid_block_additional_residual": points.get(MID),
        }


def _plus(activation: Tensor, residuals: SideResiduals, name: str) -> Tensor:
    return activation + residuals.points[name] if name in residuals.points else activation


def _settings_beside_defaults(unet: UNetMotionModel) -> dict[str, Any]:
    """The configuration without defaults, so that a setting new in diffusers changes nothing."""
    parameters = inspect.signature(UNetMotionModel.__init__).parameters
    settings = {name: unet.config[name] for name in parameters if name in unet.config}
    return {
        name: value
        for name, value in settings.items()
        if json.dumps(value) != json.dumps(parameters[name].default)
    }


# Checks of the parts.


def _prediction_type(scheduler: SchedulerMixin) -> PredictionType:
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(
            f"scheduler {type(scheduler).__name__} has no noise schedule (alphas_cumprod): "
            "AnimateDiff needs a diffusion scheduler such as DDIMScheduler"
        )
    name = scheduler.config.get("prediction_type", "epsilon")
    for kind in get_args(PredictionType):
        if kind == name and kind != "flow":
            return kind
    raise UserError(
        f"scheduler: prediction_type '{name}' is not one of epsilon, v_prediction and sample"
    )


def _check_unet(unet: UNetMotionModel, vae: AutoencoderKL) -> None:
    if not isinstance(unet, UNetMotionModel):
        raise UserError(f"unet is a {type(unet).__name__}, AnimateDiff needs a UNetMotionModel")
    if unet.config.addition_embed_type is not None:
        raise UserError("this UNet wants added embeddings (SDXL): only Stable Diffusion 1.x fits")
    if unet.config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"the UNet takes {unet.config.in_channels} channels and the VAE makes "
            f"{vae.config.latent_channels}: they are not of one checkpoint, or of another method"
        )


# Loading.


def _model_index(path: str | PathLike[str], hub: dict[str, Any]) -> dict[str, Any]:
    check_source(path)
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise UserError(f"{path}: not a diffusers checkpoint, model_index.json is missing")
    try:
        with libraries_silent():
            return dict(DiffusionPipeline.load_config(fspath(path), **hub))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no checkpoint there: {first_line(error)}") from None


def _load_component(
    path: str | PathLike[str], name: str, entry: list[str] | None, hub: dict[str, Any]
) -> Any:
    """One part, by the class that model_index.json names if that is one of `COMPONENTS`."""
    if not entry or None in entry:
        raise UserError(f"{path}: model_index.json has no {name}")
    library, classes = COMPONENTS[name]
    class_name = entry[1]
    modules = {"diffusers": diffusers, "transformers": transformers}
    loader = getattr(modules[library], class_name, None) if entry[0] == library else None
    fits = class_name in classes if classes else _is_scheduler(loader)
    if loader is None or not fits:
        expected = " or ".join(classes) if classes else "a diffusers scheduler"
        raise UserError(f"{path}: {name} is {entry[0]}.{class_name}, expected {expected}")
    if Path(path).is_dir() and not (Path(path) / name).is_dir():
        raise UserError(f"{path}: folder {name}/ is missing")
    return load_pretrained(loader, path, subfolder=name, **hub)


def _is_scheduler(loader: object) -> bool:
    return isinstance(loader, type) and issubclass(loader, SchedulerMixin)


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
        return UNetMotionModel.from_unet2d(unet, adapter)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{motion_adapter}: does not fit the UNet of {path}: {first_line(error)}"
        ) from None
