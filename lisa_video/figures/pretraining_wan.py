"""Train the embedded Wan checkpoint: causal video VAE, then transformer with its text encoder.

Every part is a plain diffusers / transformers model, saved together as a `WanPipeline` folder.

Shape legend: N clips, B batch, F frames, T latent frames, C latent channels, H W pixels, h w latent
cells, L tokens, D text width.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from lisa_video.figures.config import PretrainWanConfig, WanTransformerConfig, WanVaeConfig
from lisa_video.figures.stages import (
    FigureFrames,
    Stage,
    autoencoder_loss,
    rendered_figures,
    save_pipeline,
    step_generator,
    stored_tensor,
    to_pixels,
)
from lisa_video.predictions import add_noise, regression_target, shifted_time

_TRAIN_TIMESTEPS = 1000
_SPELLED_SCORE = -20.0  # of a letter: below any word's log frequency


def pretrain_wan(config: PretrainWanConfig, motion_folder: Path) -> Path:
    """Run every stage that is not finished yet and return the folder of the checkpoint."""
    if config.threads:
        torch.set_num_threads(config.threads)
    figures = rendered_figures(config.figures, config.output, motion_folder)
    vae = train_vae(config, figures)
    tokenizer = train_tokenizer(figures.captions)
    return train_transformer(config, figures, vae, tokenizer)


# ---------------------------------------------------------------- autoencoder


def build_vae(config: WanVaeConfig) -> AutoencoderKLWan:
    """A plain diffusers `AutoencoderKLWan`, 4 frames and 4 x 4 pixels to a latent cell."""
    channels = config.latent_channels
    vae = AutoencoderKLWan(
        base_dim=config.base_width,
        z_dim=channels,
        dim_mult=config.width_factors,
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
        scale_factor_temporal=4,
        scale_factor_spatial=4,
    )
    _start_as_image_model(vae)
    # The posterior starts narrow: under unit noise the first hundreds of steps learn nothing.
    with torch.no_grad():
        vae.quant_conv.weight[channels:] = 0
        vae.quant_conv.bias[channels:] = -6
    return vae


@torch.no_grad()
def _start_as_image_model(vae: AutoencoderKLWan) -> None:
    """Kaiming weights on the newest frame alone; time resampling that keeps still pictures.

    From torch's own start, whose signal fades with every layer, a thousand steps reconstruct less
    than a hundred do from here; and what single frames teach serves videos unchanged. Of two frames
    that become one, half of the channels come from each: from their mean it learns no motion.
    """
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(module.weight)
            newest = module.weight[:, :, -1] if module.weight.dim() == 5 else module.weight
            newest.normal_(0, math.sqrt(2 / newest[0].numel()))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    for module in vae.modules():
        if hasattr(module, "time_conv"):
            weight = nn.init.zeros_(module.time_conv.weight)  # (channels out, in, 3, 1, 1)
            same = rearrange(torch.eye(weight.shape[1]), "o i -> o i 1 1")
            if len(weight) == len(same):
                weight[::2, :, -1], weight[1::2, :, -2] = same[::2], same[1::2]
            else:
                weight[:, :, -1] = torch.cat([same, same])


def train_vae(config: PretrainWanConfig, figures: FigureFrames) -> AutoencoderKLWan:
    """Reconstruct frames, then clips, and note the latents' mean and deviation in the VAE's
    configuration.

    Each of the two has an optimizer of its own: weights of older frames have no gradient before the
    clips, and would be thrown about by an Adam that has seen none. Where a picture moves, errors
    weigh more.
    """
    settings = config.vae
    torch.manual_seed(config.seed)
    vae = build_vae(settings)
    minutes, frames = config.checkpoint_minutes, settings.frames
    images = Stage(
        "vae_images",
        config.output,
        {"vae": vae},
        lr=settings.lr,
        steps=settings.image_steps,
        checkpoint_minutes=minutes,
    )
    _train_on_windows(config, images, vae, figures, frames=1, batch=settings.images)
    videos = Stage(
        "vae",
        config.output,
        {"vae": vae},
        lr=settings.video_lr,
        steps=settings.video_steps,
        checkpoint_minutes=minutes,
        beta2=0.99,
    )
    _train_on_windows(config, videos, vae, figures, frames=frames, batch=settings.batch_size)
    vae.eval().requires_grad_(False)
    sample = figures.frames[:: max(1, len(figures.frames) // 64), :frames]
    latents = torch.cat([_encode(vae, clip) for clip in sample])
    vae.register_to_config(
        latents_mean=latents.mean(dim=(0, 2, 3, 4)).tolist(),
        latents_std=latents.std(dim=(0, 2, 3, 4)).tolist(),
    )
    return vae


def _train_on_windows(
    config: PretrainWanConfig,
    stage: Stage,
    vae: AutoencoderKLWan,
    figures: FigureFrames,
    *,
    frames: int,
    batch: int,
) -> None:
    """One stage: `batch` windows of so many frames per step."""
    clips, length = figures.frames.shape[:2]
    for step in stage.run():
        generator = step_generator(config.seed, frames, step)
        picks = torch.randint(clips, (batch,), generator=generator)
        starts = torch.randint(length - frames + 1, (batch,), generator=generator)
        window = starts[:, None] + torch.arange(frames)
        pixels = _video(figures.frames[picks[:, None].numpy(), window.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        weights = 1 + config.vae.motion_weight * _motion(pixels)
        loss, terms = autoencoder_loss(posterior, decoded, pixels, config.vae.kl_weight, weights)
        stage.update(loss, **terms)


def _motion(pixels: Tensor) -> Tensor:
    """How far each pixel is from its mean over the frames: (B, 1, F, H, W) in [0, 1]."""
    away = (pixels - pixels.mean(dim=2, keepdim=True)).abs()
    return away.mean(dim=1, keepdim=True).clamp(max=1)


def _video(frames: np.ndarray) -> Tensor:
    """uint8 (B, F, H, W, 3) -> float32 (B, 3, F, H, W) in [-1, 1], as the Wan VAE wants it."""
    return rearrange(to_pixels(frames), "b f c h w -> b c f h w")


@torch.no_grad()
def _encode(vae: AutoencoderKLWan, clip: np.ndarray) -> Tensor:
    """uint8 (F, H, W, 3) -> the posterior's mean, float32 (1, C, T, h, w), not normalised."""
    with torch.autocast("cpu", torch.bfloat16):
        mean: Tensor = vae.encode(_video(clip[None])).latent_dist.mean
    return mean.float()


def _encode_all(
    vae: AutoencoderKLWan, figures: FigureFrames, frames: int, generator: torch.Generator
) -> Tensor:
    """Normalised latents of one window of every clip: float16 (N, C, T, h, w)."""
    mean, std = (
        rearrange(torch.tensor(values), "c -> 1 c 1 1 1")
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    starts = torch.randint(
        figures.frames.shape[1] - frames + 1, (len(figures.frames),), generator=generator
    )
    windows = zip(figures.frames, starts.tolist(), strict=True)
    return torch.cat(
        [
            ((_encode(vae, clip[start : start + frames]) - mean) / std).half()
            for clip, start in tqdm(windows, total=len(starts), desc="encode", unit="clip")
        ]
    )


# ---------------------------------------------------------------- text


def train_tokenizer(captions: list[str]) -> T5Tokenizer:
    """A T5 tokenizer of the captions' words, each with its log frequency, that can spell ASCII.

    sentencepiece's own trainer would cut these few, regular sentences down to letters.
    """
    counts = Counter(word for caption in captions for word in re.findall("[a-z]+", caption))
    total = counts.total()
    words = [("▁" + word, math.log(count / total)) for word, count in sorted(counts.items())]
    known = {piece for piece, _ in words}
    letters = ["▁", *map(chr, range(33, 127))]
    spelled = [(letter, _SPELLED_SCORE) for letter in letters if letter not in known]
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, *words, *spelled], extra_ids=0)


def build_text_encoder(config: WanTransformerConfig, tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=config.text_width,
            d_kv=config.text_width // 4,
            d_ff=2 * config.text_width,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


# ---------------------------------------------------------------- transformer


def build_transformer(config: WanTransformerConfig, latent_channels: int) -> WanTransformer3DModel:
    """A plain diffusers `WanTransformer3DModel` on 2 x 2 latent cells."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=config.heads,
        attention_head_dim=config.head_width,
        in_channels=latent_channels,
        out_channels=latent_channels,
        text_dim=config.text_width,
        freq_dim=256,
        ffn_dim=config.ffn_width,
        num_layers=config.layers,
        rope_max_seq_len=64,
    )


def train_transformer(
    config: PretrainWanConfig,
    figures: FigureFrames,
    vae: AutoencoderKLWan,
    tokenizer: T5Tokenizer,
) -> Path:
    """Train on single latent frames, then on clips; save the averaged weights as a Wan folder."""
    settings = config.transformer
    latents = stored_tensor(
        config.output / "latents.pt",
        lambda: _encode_all(vae, figures, settings.frames, step_generator(config.seed, 0, 0)),
    )
    torch.manual_seed(config.seed + 1)
    transformer = build_transformer(settings, config.vae.latent_channels)
    text_encoder = build_text_encoder(settings, tokenizer)
    tokens = tokenizer(
        [*figures.captions, ""],
        padding="max_length",
        max_length=min(settings.text_tokens),
        truncation=True,
        return_tensors="pt",
    )
    stage = Stage(
        "transformer",
        config.output,
        {"transformer": transformer, "text_encoder": text_encoder},
        lr=settings.lr,
        steps=settings.image_steps + settings.video_steps,
        checkpoint_minutes=config.checkpoint_minutes,
        beta2=0.95,
        ema=settings.ema,
        muon=transformer.blocks,
    )
    transformer.train()
    for step in stage.run():
        generator = step_generator(config.seed, 2, step)
        clean, rows = _batch(latents, settings, step, generator)
        uniform = torch.rand(len(clean), generator=generator)
        u = rearrange(shifted_time(uniform, settings.timestep_shift), "b -> b 1 1 1 1")
        noise = torch.randn(clean.shape, generator=generator)
        length = settings.text_tokens[
            int(torch.randint(len(settings.text_tokens), (1,), generator=generator))
        ]
        mask = tokens.attention_mask[rows]
        with torch.autocast("cpu", torch.bfloat16):
            text = text_encoder(tokens.input_ids[rows], mask).last_hidden_state * mask[..., None]
            text = F.pad(text, (0, 0, 0, length - text.shape[1]))
            noisy = add_noise(clean, noise, 1 - u, u)
            predicted = transformer(noisy, u.flatten() * _TRAIN_TIMESTEPS, text).sample.float()
        stage.update(F.mse_loss(predicted, regression_target("flow", clean, noise, 1 - u, u)))
    stage.take_average()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=_TRAIN_TIMESTEPS, shift=settings.timestep_shift
        ),
        transformer=transformer.eval(),
    )
    return save_pipeline(pipeline, config.output / "backbone")


def _batch(
    latents: Tensor, settings: WanTransformerConfig, step: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Clean latents (B, C, T, h, w) of one step, and the row of each clip's caption (B,)."""
    clips, _, latent_frames = latents.shape[:3]
    video = step >= settings.image_steps
    batch = settings.batch_size * (1 if video else latent_frames)
    picks = torch.randint(clips, (batch,), generator=generator)
    clean = latents[picks].float()
    dropped = torch.rand(batch, generator=generator) < settings.text_dropout
    return clean if video else clean[:, :, :1], torch.where(dropped, clips, picks)
