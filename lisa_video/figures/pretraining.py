"""Train the embedded AnimateDiff checkpoint: image VAE, then motion UNet with its text encoder.

Every part is a plain diffusers / transformers model, saved together as an `AnimateDiffPipeline` folder.

Shape legend: N clips, B batch, F frames, C latent channels, H W pixels, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNetMotionModel,
)
from einops import rearrange, repeat
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lisa_video.figures.config import PretrainConfig, UNetConfig, VaeConfig
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

_MAX_TOKENS = 32


def pretrain(config: PretrainConfig, motion_folder: Path) -> Path:
    """Run every stage that is not finished yet and return the folder of the checkpoint."""
    if config.threads:
        torch.set_num_threads(config.threads)
    figures = rendered_figures(config.figures, config.output, motion_folder)
    vae = train_vae(config, figures)
    tokenizer = train_tokenizer(figures.captions, config.output / "tokenizer")
    return train_unet(config, figures, vae, tokenizer)


# ---------------------------------------------------------------- autoencoder


def build_vae(config: VaeConfig, size: int) -> AutoencoderKL:
    """A plain diffusers `AutoencoderKL` that reduces by 2 per level after the first."""
    levels = len(config.channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.channels),
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=size,
        mid_block_add_attention=False,
    )
    # The posterior starts narrow: under unit noise the first hundreds of steps learn nothing.
    with torch.no_grad():
        vae.quant_conv.weight[config.latent_channels :] = 0
        vae.quant_conv.bias[config.latent_channels :] = -6
    return vae


def train_vae(config: PretrainConfig, figures: FigureFrames) -> AutoencoderKL:
    """Reconstruct single frames, and note the latents' scale in the VAE's configuration."""
    torch.manual_seed(config.seed)
    vae = build_vae(config.vae, config.figures.size)
    stage = Stage(
        "vae",
        config.output,
        {"vae": vae},
        lr=config.vae.lr,
        steps=config.vae.steps,
        checkpoint_minutes=config.checkpoint_minutes,
    )
    clips, frames = figures.frames.shape[:2]
    for step in stage.run():
        generator = step_generator(config.seed, 1, step)
        picks = torch.randint(clips * frames, (config.vae.batch_size,), generator=generator)
        pixels = to_pixels(figures.frames.reshape(-1, *figures.frames.shape[2:])[picks.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        loss, terms = autoencoder_loss(posterior, decoded, pixels, config.vae.kl_weight)
        stage.update(loss, **terms)
    vae.eval().requires_grad_(False)
    sample = to_pixels(figures.frames[:: max(1, clips // 64), 0])
    std = vae.encode(sample).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1 / std)
    return vae


@torch.no_grad()
def _encode_all(vae: AutoencoderKL, figures: FigureFrames) -> Tensor:
    """Scaled latents of every clip: float16 (N, F, C, h, w)."""
    encoded = []
    with torch.autocast("cpu", torch.bfloat16):
        for clip in tqdm(figures.frames, desc="encode", unit="clip"):
            mean = vae.encode(to_pixels(clip)).latent_dist.mean.float()
            encoded.append((mean * vae.config.scaling_factor).half())
    return torch.stack(encoded)


# ---------------------------------------------------------------- text


def train_tokenizer(captions: list[str], folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair vocabulary is learned from the captions; it can spell any text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    learner.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=1024, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    merges = json.loads(learner.to_str())["model"]["merges"]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += ["".join(pair) for pair in merges]
    pieces = [*list(dict.fromkeys(pieces)), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    lines = [" ".join(pair) for pair in merges]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=_MAX_TOKENS
    )


def build_text_encoder(config: UNetConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=2 * config.text_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=_MAX_TOKENS,
            projection_dim=config.text_width,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


# ---------------------------------------------------------------- motion UNet


def build_unet(config: UNetConfig, latent_channels: int, latent_size: int) -> UNetMotionModel:
    """A plain diffusers `UNetMotionModel`: motion modules at every level, text below the first."""
    levels = len(config.channels)
    return UNetMotionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlockMotion", *("CrossAttnDownBlockMotion",) * (levels - 1)),
        up_block_types=(*("CrossAttnUpBlockMotion",) * (levels - 1), "UpBlockMotion"),
        block_out_channels=tuple(config.channels),
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.text_width,
        num_attention_heads=4,
        motion_num_attention_heads=4,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR (Lin et al., arXiv:2305.08891), so that t = 999 is pure noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def train_unet(
    config: PretrainConfig, figures: FigureFrames, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> Path:
    """Train on single frames, then on clips; save the averaged weights as an AnimateDiff folder."""
    settings = config.unet
    latents = stored_tensor(config.output / "latents.pt", lambda: _encode_all(vae, figures))
    torch.manual_seed(config.seed + 1)
    unet = build_unet(settings, config.vae.latent_channels, latents.shape[-1])
    text_encoder = build_text_encoder(settings, tokenizer)
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod.sqrt()
    noise_level = (1 - scheduler.alphas_cumprod).sqrt()
    tokens = tokenizer(
        [*figures.captions, ""], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    stage = Stage(
        "unet",
        config.output,
        {"unet": unet, "text_encoder": text_encoder},
        lr=settings.lr,
        steps=settings.image_steps + settings.video_steps,
        checkpoint_minutes=config.checkpoint_minutes,
        ema=settings.ema,
    )
    unet.train()
    for step in stage.run():
        generator = step_generator(config.seed, 2, step)
        clean, ids = _unet_batch(latents, tokens, settings, step, generator)
        batch, frames = clean.shape[0], clean.shape[2]
        uniform = torch.rand(batch, generator=generator)
        timesteps = (shifted_time(uniform, settings.timestep_shift) * len(signal)).long()
        timesteps = timesteps.clamp(max=len(signal) - 1)
        a, s = (rearrange(table[timesteps], "b -> b 1 1 1 1") for table in (signal, noise_level))
        noise = torch.randn(clean.shape, generator=generator)
        target = regression_target("v_prediction", clean, noise, a, s)
        text = text_encoder(ids).last_hidden_state
        predicted = unet(
            add_noise(clean, noise, a, s), timesteps, repeat(text, "b l d -> (b f) l d", f=frames)
        ).sample
        stage.update(F.mse_loss(predicted, target))
    stage.take_average()
    return save_checkpoint(
        config.output / "backbone", vae, text_encoder, tokenizer, unet, scheduler
    )


def _unet_batch(
    latents: Tensor, tokens: Tensor, settings: UNetConfig, step: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Clean latents (B, C, F, h, w) and token ids (B, L) of one step."""
    clips, length = latents.shape[:2]
    video = step >= settings.image_steps
    frames = settings.frames if video else 1
    batch = settings.batch_size * (1 if video else settings.frames)
    picks = torch.randint(clips, (batch,), generator=generator)
    starts = torch.randint(length - frames + 1, (batch,), generator=generator)
    window = starts[:, None] + torch.arange(frames)
    clean = rearrange(latents[picks[:, None], window].float(), "b f c h w -> b c f h w")
    dropped = torch.rand(batch, generator=generator) < settings.text_dropout
    return clean, tokens[torch.where(dropped, clips, picks)]


def save_checkpoint(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNetMotionModel,
    scheduler: DDIMScheduler,
) -> Path:
    """Write a complete `AnimateDiffPipeline` folder in float16 safetensors."""
    # The pipeline's class lists a motion adapter; with a UNetMotionModel it is never read, so it is minimal.
    adapter = MotionAdapter(
        block_out_channels=(8,), motion_norm_num_groups=4, motion_num_attention_heads=1
    )
    pipeline = AnimateDiffPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        motion_adapter=adapter,
        scheduler=scheduler,
    )
    return save_pipeline(pipeline, folder)
