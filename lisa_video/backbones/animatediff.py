"""AnimateDiff as a main network: a thin adapter around an unmodified diffusers checkpoint.

Shape legend: B batch, F frames, C latent channels, H W pixels, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DiffusionPipeline,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from einops import rearrange, repeat
from torch import Tensor, nn

from lisa_video.backbones.residuals import SideResiduals
from lisa_video.errors import UserError
from lisa_video.predictions import PredictionType

_COMPONENTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")


class AnimateDiffBackbone:
    """A frozen motion UNet with its VAE, text encoder, tokenizer and noise schedule.

    Args:
        unet: `UNetMotionModel`.
        vae: `AutoencoderKL`.
        text_encoder, tokenizer: CLIP, from transformers.
        scheduler: any diffusers scheduler with `alphas_cumprod` and a `prediction_type`.

    Raises:
        UserError: the scheduler has no noise schedule, or its prediction type is not epsilon, v_prediction or sample.
    """

    kind = "animatediff"

    def __init__(
        self,
        unet: UNetMotionModel,
        vae: AutoencoderKL,
        text_encoder: nn.Module,
        tokenizer: Any,
        scheduler: SchedulerMixin,
    ) -> None:
        if not hasattr(scheduler, "alphas_cumprod"):
            raise UserError(
                f"scheduler {type(scheduler).__name__} has no alphas_cumprod: not a diffusion schedule"
            )
        prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if prediction_type not in get_args(PredictionType) or prediction_type == "flow":
            raise UserError(f"scheduler: prediction_type '{prediction_type}' is not supported")
        self.unet, self.vae = unet, vae
        self.text_encoder, self.tokenizer, self.scheduler = text_encoder, tokenizer, scheduler
        self.prediction_type: PredictionType = prediction_type
        for module in (unet, vae, text_encoder):
            module.eval().requires_grad_(False)
        # float64 first: near zero terminal SNR, 1 - alphas_cumprod loses digits in float32.
        alphas = scheduler.alphas_cumprod.double()
        self._signal, self._noise = alphas.sqrt().float(), (1 - alphas).sqrt().float()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        motion_adapter: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> AnimateDiffBackbone:
        """Load from a diffusers folder or hub name.

        Args:
            path: an AnimateDiff checkpoint, or a Stable Diffusion 1.5 one together with `motion_adapter`.
            motion_adapter: folder or hub name of a `MotionAdapter`; needed where the UNet is a plain 2-D one.
            dtype: of the weights.
            revision: branch, tag or commit on the hub.
            local_files_only: never ask the hub.

        Raises:
            UserError: nothing loadable there, a component is missing, or the adapter is missing.
        """
        options = {"revision": revision, "local_files_only": local_files_only}
        index = _model_index(path, options)
        missing = [name for name in _COMPONENTS if not index.get(name) or not index[name][0]]
        if missing:
            raise UserError(f"{path}: model_index.json lacks {', '.join(missing)}")
        parts = {
            name: _load_component(path, name, index[name], dtype, options) for name in _COMPONENTS
        }
        unet = parts["unet"]
        if isinstance(unet, UNet2DConditionModel):
            if motion_adapter is None:
                raise UserError(
                    f"{path}: its UNet has no motion modules; name a motion adapter "
                    "(backbone.motion_adapter)"
                )
            adapter = _load(
                MotionAdapter, motion_adapter, torch_dtype=dtype, local_files_only=local_files_only
            )
            parts["unet"] = UNetMotionModel.from_unet2d(unet, adapter).to(dtype)
        elif not isinstance(unet, UNetMotionModel):
            raise UserError(f"{path}: unet is a {type(unet).__name__}, expected UNetMotionModel")
        return cls(**parts)

    # ------------------------------------------------------------ facts

    @property
    def latent_channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell along each axis."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def max_frames(self) -> int:
        """Most frames that the motion modules can attend to at once."""
        return int(self.unet.config.motion_max_seq_length)

    @property
    def train_timesteps(self) -> int:
        return len(self._signal)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def to(self, device: torch.device | str) -> AnimateDiffBackbone:
        """Move every part to `device` and return self."""
        for module in (self.unet, self.vae, self.text_encoder):
            module.to(device)
        self._signal, self._noise = self._signal.to(device), self._noise.to(device)
        return self

    def fingerprint(self) -> str:
        """sha256 over the UNet's configuration and float32 weights; side networks remember it."""
        digest = hashlib.sha256()
        config = {k: v for k, v in sorted(self.unet.config.items()) if not k.startswith("_")}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, value in sorted(self.unet.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # ------------------------------------------------------------ encode and decode

    @torch.no_grad()
    def encode_video(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1] -> scaled latents (B, C, F, h, w).

        The posterior is sampled with `generator`; without one its mode is taken.
        """
        images = rearrange(pixels, "b f c h w -> (b f) c h w").to(self.vae.device, self.vae.dtype)
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        latents = latents * self.vae.config.scaling_factor
        return rearrange(latents, "(b f) c h w -> b c f h w", f=pixels.shape[1])

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, F, h, w) -> float32 pixels (B, F, 3, H, W) in [-1, 1]."""
        images = rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype)
        pixels = self.vae.decode(images / self.vae.config.scaling_factor).sample
        return rearrange(pixels.float(), "(b f) c h w -> b f c h w", f=latents.shape[2]).clamp(-1, 1)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Prompts -> (B, L, D), padded and cut to the tokenizer's length as AnimateDiffPipeline does."""
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if uses_mask else None
        states = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)
        text: Tensor = states[0]
        return text.to(self.dtype)

    # ------------------------------------------------------------ noise

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients a, s of x_t = a x_0 + s n at timesteps (B,): two (B, 1, 1, 1, 1), float32."""
        return tuple(  # type: ignore[return-value]
            rearrange(table[timesteps], "b -> b 1 1 1 1") for table in (self._signal, self._noise)
        )

    def sample_timesteps(
        self, batch: int, generator: torch.Generator | None = None, shift: float = 1.0
    ) -> Tensor:
        """Draw (B,) timesteps; shift > 1 favours high noise.

        u uniform in [0, 1) becomes shift u / (1 + (shift - 1) u) (Esser et al., arXiv:2403.03206, sec. 5.3.2).
        """
        uniform = torch.rand(batch, generator=generator)
        shifted = shift * uniform / (1 + (shift - 1) * uniform)
        last = self.train_timesteps - 1
        return (shifted * self.train_timesteps).long().clamp(0, last).to(self.device)

    # ------------------------------------------------------------ predictions

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        residuals: SideResiduals | None = None,
    ) -> Tensor:
        """One forward of the unmodified UNet, in its own parametrisation.

        Args:
            noisy: (B, C, F, h, w).
            timesteps: (B,).
            text: (B, L, D).
            residuals: what the side network adds; None gives the prior prediction.

        Returns:
            (B, C, F, h, w).
        """
        down, mid = self._diffusers_residuals(residuals)
        prediction: Tensor = self.unet(
            noisy,
            timesteps,
            repeat(text, "b l d -> (b f) l d", f=noisy.shape[2]),
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return prediction

    def predict_with_prior(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, residuals: SideResiduals
    ) -> tuple[Tensor, Tensor]:
        """Controlled and prior prediction from one pass through the encoder and middle.

        Control enters a UNet at the skips and after the middle only, so the encoder gives the same activations
        with and without it. The prior is an unmodified forward without gradient; what its up blocks were
        called with is then replayed with the residuals added. Exact, and the encoder keeps no graph.

        Args and shapes as `predict`.

        Returns:
            controlled prediction, with gradient into the residuals, and prior prediction, without: (B, C, F, h, w).
        """
        unet = self.unet
        calls: list[dict[str, Any]] = []

        def record(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append(kwargs)

        hooks = [
            block.register_forward_pre_hook(record, with_kwargs=True) for block in unet.up_blocks
        ]
        try:
            with torch.no_grad():
                prior = self.predict(noisy, timesteps, text)
        finally:
            for hook in hooks:
                hook.remove()

        points = dict(residuals.points)
        hidden = calls[0]["hidden_states"]
        if "mid" in points:
            hidden = hidden + points["mid"]
        last_skip = sum(len(call["res_hidden_states_tuple"]) for call in calls)
        for block, call in zip(unet.up_blocks, calls, strict=True):
            skips = call["res_hidden_states_tuple"]
            first = last_skip - len(skips)
            controlled = tuple(
                skip + points[name] if (name := f"down_{index}") in points else skip
                for index, skip in enumerate(skips, first)
            )
            last_skip = first
            hidden = block(
                **{**call, "hidden_states": hidden, "res_hidden_states_tuple": controlled}
            )
        if unet.conv_norm_out is not None:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        hidden = rearrange(unet.conv_out(hidden), "(b f) c h w -> b c f h w", f=noisy.shape[2])
        return hidden, prior

    def injection_points(self) -> list[str]:
        """Names of all skips and the middle, in the order of the encoder."""
        skips = 1 + sum(
            len(block.resnets) + (block.downsamplers is not None) for block in self.unet.down_blocks
        )
        return [*(f"down_{index}" for index in range(skips)), "mid"]

    def _diffusers_residuals(
        self, residuals: SideResiduals | None
    ) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
        """The tuple over all skips that diffusers expects; a skip without residual gets a scalar 0."""
        if residuals is None:
            return None, None
        points = residuals.points
        nothing = torch.zeros((), device=self.device, dtype=self.dtype)
        down = tuple(points.get(name, nothing) for name in self.injection_points()[:-1])
        return down, points.get("mid")


# ---------------------------------------------------------------- loading


def _model_index(path: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    folder = Path(path)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UserError(f"{path}: not a diffusers checkpoint (model_index.json is missing)")
    if not folder.is_dir() and (folder.is_absolute() or str(path).count("/") != 1):
        raise UserError(f"{path}: no such folder, and not a hub name of the form owner/name")
    try:
        config = DiffusionPipeline.load_config(str(path), **options)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be loaded ({_first_line(error)})") from None
    return dict(config)


def _load_component(
    path: str | Path, name: str, entry: list[str], dtype: torch.dtype, options: dict[str, Any]
) -> Any:
    """Load one component by the class that model_index.json names, from diffusers or transformers alone."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    library, class_name = entry
    loader = getattr(libraries.get(library), class_name, None)
    if loader is None:
        raise UserError(f"{path}: model_index.json names {library}.{class_name} for {name}")
    if Path(path).is_dir() and not (Path(path) / name).is_dir():
        raise UserError(f"{path}: folder {name}/ is missing")
    weights = {} if name in ("tokenizer", "scheduler") else {"torch_dtype": dtype}
    if library == "transformers" and weights:
        weights = {"dtype": dtype}
    return _load(loader, path, subfolder=name, **options, **weights)


def _load(loader: type[ConfigMixin], path: str | Path, **options: Any) -> Any:
    try:
        return loader.from_pretrained(str(path), **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        part = options.get("subfolder", "")
        raise UserError(
            f"{Path(path) / part}: not a loadable {loader.__name__} ({_first_line(error)})"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
