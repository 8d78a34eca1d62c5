"""Wan as main network: a thin adapter around an unmodified diffusers checkpoint (2.1, 2.2 TI2V).

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, ModelMixin, WanPipeline, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from einops import rearrange
from torch import Tensor
from typing_extensions import Self

from lisa_video.backbones.transformer import TransformerBackbone
from lisa_video.errors import UserError
from lisa_video.loading import ComponentTable, model_index
from lisa_video.offloading import bring
from lisa_video.predictions import PredictionType
from lisa_video.side_networks.transformer import BlockLayout, TransformerSideNetwork

TEXT_TOKENS = 512  # as WanPipeline pads


class WanSideNetwork(TransformerSideNetwork, ModelMixin):
    """The side network of a `WanTransformer3DModel`."""

    layout: ClassVar[BlockLayout] = BlockLayout(
        transformer=WanTransformer3DModel,
        blocks="blocks",
        states=("hidden_states",),
        wide=("hidden_states", "encoder_hidden_states", "temb"),
        ffn_width="ffn_dim",
    )


class WanBackbone(TransformerBackbone):
    """A frozen Wan transformer with its VAE, text encoder, tokenizer and schedule.

    `text_tokens` is L, the length that prompts are padded to. Raises UserError where the parts are
    no text-to-video checkpoint: image-to-video transformers take more channels than they make, and
    the two transformers of Wan 2.2 A14B would need a side network each.
    """

    kind: ClassVar[str] = "wan"
    components: ClassVar[ComponentTable] = {
        "transformer": ("diffusers", ("WanTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLWan",)),
        "text_encoder": ("transformers", ("UMT5EncoderModel",)),
        "tokenizer": ("transformers", ("T5Tokenizer", "T5TokenizerFast")),
        "scheduler": ("diffusers", None),
    }
    prediction_types: ClassVar[tuple[PredictionType, ...]] = ("flow",)
    side_network_class: ClassVar[type[TransformerSideNetwork]] = WanSideNetwork
    pipeline_class: ClassVar[type[DiffusionPipeline]] = WanPipeline
    text_tokens: int = TEXT_TOKENS

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        text_tokens: int = TEXT_TOKENS,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
        encoders_later: bool = False,
    ) -> Self:
        """As the base has it; `text_tokens` is the length that prompts are padded to."""
        hub = {"revision": revision, "local_files_only": local_files_only}
        second = model_index(path, hub).get("transformer_2")
        if second and None not in second:
            raise UserError(
                f"{path}: has two transformers (Wan 2.2 A14B), and one side network cannot steer "
                "both; take Wan 2.1 or Wan 2.2 TI2V-5B"
            )
        backbone = super().from_pretrained(
            path,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
            encoders_later=encoders_later,
        )
        backbone.text_tokens = text_tokens
        return backbone

    def _check_parts(self) -> None:
        super()._check_parts()
        frames, height, width = patch = self.main_network.config.patch_size
        if frames != 1 or height != width:
            raise UserError(f"patches of {tuple(patch)}: only (1, n, n) fits")

    @property
    def patch_size(self) -> int:
        return int(self.main_network.config.patch_size[1])

    @property
    def vae_scale_factor(self) -> int:
        return int(self.vae_config.scale_factor_spatial)

    @property
    def frame_size(self) -> None:
        """A Wan checkpoint does not say."""

    @property
    def max_frames(self) -> int:
        """Most frames that rotary positions are made for."""
        return 1 + self.frames_per_latent * (self.main_network.config.rope_max_seq_len - 1)

    # Pixels and latents.

    @property
    def _vae_channels(self) -> int:
        return int(self.vae_config.z_dim)

    def _scaled(self, latents: Tensor) -> Tensor:
        mean, std = self._latent_statistics(latents)
        return (latents - mean) / std

    def _unscaled(self, latents: Tensor) -> Tensor:
        mean, std = self._latent_statistics(latents)
        return latents * std + mean

    def _latent_statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel, (1, C, 1, 1, 1)."""
        config = self.vae_config
        mean, std = (
            rearrange(torch.tensor(values), "c -> 1 c 1 1 1").to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std

    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        vae = self.vae
        bring(vae)
        vae.clear_cache()
        latents = vae.post_quant_conv(latents)
        try:
            for index, frame in enumerate(latents.split(1, dim=2)):
                video = vae.decoder(
                    frame, feat_cache=vae._feat_map, feat_idx=[0], first_chunk=index == 0
                )
                patch = vae.config.patch_size
                yield video if patch is None else unpatchify(video, patch_size=patch)
        finally:
            vae.clear_cache()

    # Predictions.

    def _forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        # One timestep per clip: where WanPipeline gives one per token (TI2V), they are all equal.
        prediction: Tensor = self.main_network(noisy, timesteps, text, return_dict=False)[0]
        return prediction
