"""A complete Wan checkpoint of a few thousand seeded weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from lisa_video.backbones.wan import WanBackbone

TEXT_WIDTH = 16
TOKENS = 10
LATENT_CHANNELS = 4
VAE_FACTOR = 4
BLOCKS = 6
WIDTH = 32


def tiny_transformer(**changes: object) -> WanTransformer3DModel:
    """Four heads of 8 channels."""
    settings = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": WIDTH // 8,
        "attention_head_dim": 8,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 16,
        "ffn_dim": 40,
        "num_layers": BLOCKS,
        "rope_max_seq_len": 16,
    }
    return WanTransformer3DModel(**(settings | changes))


def tiny_wan_vae() -> AutoencoderKLWan:
    """4 x 4 pixels and 4 frames to a latent cell."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 0.8, 1.0],
        scale_factor_spatial=4,
    )


def tiny_t5_tokenizer() -> T5Tokenizer:
    """Letters, and one word."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [("▁", -9.0), *((chr(code), -10.0) for code in range(33, 127))]
    return T5Tokenizer(vocab=[*special, ("▁man", -1.0), *letters], extra_ids=0)


def tiny_umt5(tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
        )
    )


def tiny_wan(
    seed: int = 0, scheduler: SchedulerMixin | None = None, **transformer_changes: object
) -> WanBackbone:
    """The same weights for the same seed."""
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    backbone = WanBackbone(
        main_network=tiny_transformer(**transformer_changes),
        vae=tiny_wan_vae(),
        text_encoder=tiny_umt5(tokenizer),
        tokenizer=tokenizer,
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    backbone.text_tokens = TOKENS
    return backbone


def wan_pipeline(backbone: WanBackbone) -> WanPipeline:
    """diffusers' own pipeline over the same parts."""
    return WanPipeline(
        tokenizer=backbone.tokenizer,
        text_encoder=backbone.text_encoder,
        vae=backbone.vae,
        scheduler=backbone.scheduler,
        transformer=backbone.main_network,
    )


def tiny_wan_checkpoint(folder: Path, backbone: WanBackbone | None = None) -> Path:
    """Save a complete `WanPipeline` folder and return it."""
    wan_pipeline(backbone or tiny_wan()).save_pretrained(folder)
    return folder


def wan_inputs(
    frames: int = 5, height: int = 6, width: int = 8, batch: int = 2, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents of so many video frames, timesteps, text states and pose frames."""
    generator = torch.Generator().manual_seed(seed)
    latent = (batch, LATENT_CHANNELS, 1 + (frames - 1) // 4, height, width)
    pixels = (height * VAE_FACTOR, width * VAE_FACTOR)
    return (
        torch.randn(latent, generator=generator),
        torch.rand(batch, generator=generator) * 1000,
        torch.randn(batch, TOKENS, TEXT_WIDTH, generator=generator),
        torch.rand(batch, frames, 3, *pixels, generator=generator),
    )
