"""A complete AnimateDiff checkpoint of a few thousand seeded weights, for tests."""

from __future__ import annotations

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNetMotionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.detectors.figure_net import FigureKeypointNet
from lisa_video.side_networks.base import SideNetwork

TEXT_WIDTH = 32
TOKENS = 12
LATENT_CHANNELS = 4
VAE_FACTOR = 4

AnySideNetwork = TypeVar("AnySideNetwork", bound=SideNetwork)


def tiny_unet(**changes: object) -> UNetMotionModel:
    """Two levels, so skips down_0 to down_3."""
    settings = {
        "sample_size": 8,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "num_attention_heads": 2,
        "norm_num_groups": 8,
        "motion_max_seq_length": 16,
        "motion_num_attention_heads": 2,
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    }
    return UNetMotionModel(**(settings | changes))


def tiny_vae() -> AutoencoderKL:
    levels = 3
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.5,
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """Letters and two merges."""
    letters = string.ascii_lowercase + string.digits + ".,"
    pieces = [*letters, *(letter + "</w>" for letter in letters), "ma", "man</w>"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as name:
        vocabulary, merges = Path(name) / "vocab.json", Path(name) / "merges.txt"
        vocabulary.write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
        merges.write_text("#version: 0.2\nm a\nma n</w>\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TOKENS)


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def zero_snr_scheduler() -> DDIMScheduler:
    """As the embedded backbone's: v_prediction, pure noise at the last timestep."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def epsilon_scheduler() -> DDIMScheduler:
    """As Stable Diffusion's."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        steps_offset=1,
        clip_sample=False,
    )


def tiny_backbone(
    seed: int = 0, scheduler: DDIMScheduler | None = None, **unet_changes: object
) -> AnimateDiffBackbone:
    """The same weights for the same seed."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    return AnimateDiffBackbone(
        main_network=tiny_unet(**unet_changes),
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=scheduler or zero_snr_scheduler(),
    )


def animatediff_pipeline(backbone: AnimateDiffBackbone) -> AnimateDiffPipeline:
    """diffusers' own pipeline over the same parts; the motion adapter is listed, and never used."""
    return AnimateDiffPipeline(
        vae=backbone.vae,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        unet=backbone.main_network,
        motion_adapter=MotionAdapter(
            block_out_channels=(8,), motion_norm_num_groups=4, motion_num_attention_heads=1
        ),
        scheduler=backbone.scheduler,
    )


def tiny_checkpoint(folder: Path, backbone: AnimateDiffBackbone | None = None) -> Path:
    """Save a complete `AnimateDiffPipeline` folder and return it."""
    animatediff_pipeline(backbone or tiny_backbone()).save_pretrained(folder)
    return folder


def tiny_detector(folder: Path) -> Path:
    """Save an untrained keypoint network, the same each time, and return its folder."""
    torch.manual_seed(0)
    FigureKeypointNet(channels=(8, 8, 8, 8)).save_pretrained(folder)
    return folder


def awakened(side: AnySideNetwork, seed: int = 1) -> AnySideNetwork:
    """As after some training: its zero projections and pose encoder are no longer 0."""
    torch.manual_seed(seed)
    for layer in (*side.projections.values(), side.pose_encoder.conv_out):
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.normal_(layer.bias, std=0.3)
    return side


def model_inputs(
    frames: int = 3, height: int = 8, width: int = 8, batch: int = 2, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, timesteps, text states and pose frames."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (height * VAE_FACTOR, width * VAE_FACTOR)
    return (
        torch.randn(batch, LATENT_CHANNELS, frames, height, width, generator=generator),
        torch.randint(1000, (batch,), generator=generator),
        torch.randn(batch, TOKENS, TEXT_WIDTH, generator=generator),
        torch.rand(batch, frames, 3, *pixels, generator=generator),
    )
