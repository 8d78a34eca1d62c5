"""CogVideoX 1.0 as main network: a thin adapter around an unmodified diffusers checkpoint.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from os import PathLike
from typing import ClassVar

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    ModelMixin,
    SchedulerMixin,
)
from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from lisa_video.backbones.transformer import TransformerBackbone
from lisa_video.encoders import FrozenEncoder
from lisa_video.errors import UserError
from lisa_video.loading import ComponentTable
from lisa_video.offloading import bring
from lisa_video.predictions import PredictionType
from lisa_video.side_networks.transformer import BlockLayout, TransformerSideNetwork


class CogVideoXSideNetwork(TransformerSideNetwork, ModelMixin):
    """The side network of a `CogVideoXTransformer3DModel`."""

    layout: ClassVar[BlockLayout] = BlockLayout(
        transformer=CogVideoXTransformer3DModel,
        blocks="transformer_blocks",
        states=("hidden_states", "encoder_hidden_states"),
        wide=("hidden_states", "encoder_hidden_states"),  # the time embedding has its own width
    )


class CogVideoXBackbone(TransformerBackbone):
    """A frozen CogVideoX transformer with its VAE, text encoder, tokenizer and schedule.

    `text_tokens` is L, the length that prompts are padded to. A `CogVideoXDPMScheduler`, whose step
    wants more than other samplers' have, becomes the `CogVideoXDDIMScheduler` of the same noise
    levels. Raises UserError where the parts are no text-to-video checkpoint of CogVideoX 1.0:
    image-to-video transformers take more channels than they make or an offset (ofs), and the
    patches of CogVideoX 1.5 span two latent frames.
    """

    kind: ClassVar[str] = "cogvideox"
    components: ClassVar[ComponentTable] = {
        "transformer": ("diffusers", ("CogVideoXTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLCogVideoX",)),
        "text_encoder": ("transformers", ("T5EncoderModel",)),
        "tokenizer": ("transformers", ("T5Tokenizer", "T5TokenizerFast")),
        "scheduler": ("diffusers", None),
    }
    prediction_types: ClassVar[tuple[PredictionType, ...]] = ("v_prediction",)
    side_network_class: ClassVar[type[TransformerSideNetwork]] = CogVideoXSideNetwork
    pipeline_class: ClassVar[type[DiffusionPipeline]] = CogVideoXPipeline
    latent_layout: ClassVar[str] = "b t c h w"

    def __init__(
        self,
        main_network: ModelMixin,
        vae: ModelMixin | FrozenEncoder,
        text_encoder: PreTrainedModel | FrozenEncoder,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
    ) -> None:
        if isinstance(scheduler, CogVideoXDPMScheduler):
            scheduler = CogVideoXDDIMScheduler.from_config(scheduler.config)
        super().__init__(main_network, vae, text_encoder, tokenizer, scheduler)
        self.text_tokens = int(main_network.config.max_text_seq_length)

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        text_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
        encoders_later: bool = False,
    ) -> Self:
        """As the base has it; `text_tokens` is the length that prompts are padded to.

        None is the length that the transformer was made for, the only one that fits where it adds
        its positions to the tokens (2B).
        """
        backbone = super().from_pretrained(
            path,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
            encoders_later=encoders_later,
        )
        made_for = backbone.text_tokens
        if text_tokens not in (None, made_for) and not backbone._is_rotary:
            raise UserError(
                f"backbone.text_tokens={text_tokens}: the positions of {path} are made for "
                f"{made_for} tokens of text"
            )
        backbone.text_tokens = text_tokens or made_for
        return backbone

    def _check_parts(self) -> None:
        config = self.main_network.config
        if config.patch_size_t is not None:
            raise UserError(
                f"patches of {config.patch_size_t} latent frames (CogVideoX 1.5): only "
                "CogVideoX 1.0, 2B or 5B, fits"
            )
        if config.ofs_embed_dim is not None:
            raise UserError(
                "this transformer wants an offset (ofs): it is one of image-to-video, and only "
                "text-to-video fits"
            )
        super()._check_parts()

    @property
    def patch_size(self) -> int:
        return int(self.main_network.config.patch_size)

    @property
    def vae_scale_factor(self) -> int:
        return 1 << len(self.vae_config.block_out_channels) - 1

    @property
    def frame_size(self) -> tuple[int, int]:
        config, factor = self.main_network.config, self.vae_scale_factor
        return config.sample_width * factor, config.sample_height * factor

    @property
    def frame_step(self) -> int:
        """The VAE decodes an odd number of latent frames to as many frames as it encoded; of an
        even number it makes 4T, and not 1 + 4 (T - 1)."""
        return 2 * self.frames_per_latent

    @property
    def max_frames(self) -> int:
        """The frames that it was trained on: positions exist for more, but it has never seen them."""
        return int(self.main_network.config.sample_frames)

    @property
    def _is_rotary(self) -> bool:
        """Positions turn queries and keys (5B), and are not added to the tokens (2B)."""
        return bool(self.main_network.config.use_rotary_positional_embeddings)

    # Pixels and latents. The VAE's `invert_scale_latents` is about the image that image-to-video
    # starts from, and changes nothing here.

    @property
    def _vae_channels(self) -> int:
        return int(self.vae_config.latent_channels)

    def _scaled(self, latents: Tensor) -> Tensor:
        scaled: Tensor = latents * self.vae_config.scaling_factor
        return scaled

    def _unscaled(self, latents: Tensor) -> Tensor:
        unscaled: Tensor = latents / self.vae_config.scaling_factor
        return unscaled

    def _decoded(self, latents: Tensor) -> Iterator[Tensor]:
        vae, cache = self.vae, None
        bring(vae)
        at_once = vae.num_latent_frames_batch_size
        # As in diffusers, the first chunk takes the frames left over as well.
        first = min(latents.shape[2], at_once + latents.shape[2] % at_once)
        for some in (latents[:, :, :first], *latents[:, :, first:].split(at_once, dim=2)):
            if some.shape[2]:
                some = some if vae.post_quant_conv is None else vae.post_quant_conv(some)
                video, cache = vae.decoder(some, conv_cache=cache)
                yield video

    # Predictions.

    def _forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        prediction: Tensor = self.main_network(
            rearrange(noisy, "b c t h w -> b t c h w"),
            text,
            timesteps,
            image_rotary_emb=self._rotary(noisy) if self._is_rotary else None,
            return_dict=False,
        )[0]
        return rearrange(prediction, "b t c h w -> b c t h w")

    def _rotary(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions, both float32 (T * rows * columns, head width)."""
        frames, height, width = noisy.shape[2:]
        factor = self.vae_scale_factor
        positions: tuple[Tensor, Tensor] = self._positions._prepare_rotary_positional_embeddings(
            height * factor, width * factor, frames, noisy.device
        )
        return positions

    @cached_property
    def _positions(self) -> CogVideoXPipeline:
        """diffusers' pipeline, without the parts that positions do not depend on."""
        pipeline = CogVideoXPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=None,
            transformer=self.main_network,
            scheduler=self.scheduler,
        )
        pipeline.vae_scale_factor_spatial = self.vae_scale_factor
        return pipeline
