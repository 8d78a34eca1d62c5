"""A complete CogVideoX checkpoint of a few thousand seeded weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    SchedulerMixin,
)
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from lisa_video.backbones.cogvideox import CogVideoXBackbone
from tests.tiny_wan import LATENT_CHANNELS, TEXT_WIDTH, TOKENS, tiny_t5_tokenizer, wan_inputs

BLOCKS = 6
WIDTH = 32


def tiny_cogvideox_transformer(**changes: object) -> CogVideoXTransformer3DModel:
    """Two heads of 16 channels; positions are added to the tokens, as in CogVideoX 2B."""
    settings = {
        "num_attention_heads": WIDTH // 16,
        "attention_head_dim": 16,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "time_embed_dim": 12,
        "text_embed_dim": TEXT_WIDTH,
        "num_layers": BLOCKS,
        "sample_width": 8,
        "sample_height": 6,
        "sample_frames": 17,
        "max_text_seq_length": TOKENS,
    }
    return CogVideoXTransformer3DModel(**(settings | changes))


def tiny_cogvideox_vae(**changes: object) -> AutoencoderKLCogVideoX:
    """4 x 4 pixels and 4 frames to a latent cell."""
    levels = 3
    settings = {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        "block_out_channels": (8,) * levels,
        "latent_channels": LATENT_CHANNELS,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_height": 24,
        "sample_width": 32,
        "scaling_factor": 0.7,
    }
    return AutoencoderKLCogVideoX(**(settings | changes))


def tiny_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
        )
    )


def cogvideox_scheduler() -> CogVideoXDDIMScheduler:
    """As CogVideoX 2B's: v_prediction, pure noise at the last timestep."""
    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def tiny_cogvideox(
    seed: int = 0, scheduler: SchedulerMixin | None = None, **transformer_changes: object
) -> CogVideoXBackbone:
    """The same weights for the same seed."""
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    return CogVideoXBackbone(
        main_network=tiny_cogvideox_transformer(**transformer_changes),
        vae=tiny_cogvideox_vae(),
        text_encoder=tiny_t5(tokenizer),
        tokenizer=tokenizer,
        scheduler=scheduler or cogvideox_scheduler(),
    )


def cogvideox_pipeline(backbone: CogVideoXBackbone) -> CogVideoXPipeline:
    """diffusers' own pipeline over the same parts."""
    return CogVideoXPipeline(
        tokenizer=backbone.tokenizer,
        text_encoder=backbone.text_encoder,
        vae=backbone.vae,
        transformer=backbone.main_network,
        scheduler=backbone.scheduler,
    )


def tiny_cogvideox_checkpoint(folder: Path, backbone: CogVideoXBackbone | None = None) -> Path:
    """Save a complete `CogVideoXPipeline` folder and return it."""
    cogvideox_pipeline(backbone or tiny_cogvideox()).save_pretrained(folder)
    return folder


def cogvideox_inputs(
    frames: int = 9, height: int = 6, width: int = 8, batch: int = 2, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As Wan's, with whole timesteps."""
    noisy, timesteps, text, poses = wan_inputs(frames, height, width, batch, seed)
    return noisy, timesteps.long(), text, poses
