"""Train the figures' keypoint network and measure it on renders that it has not seen.

Shape legend: N clips, B batch, F frames, K keypoints, H W pixels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from lisa_video.detectors.figure_net import FigureDetector, FigureKeypointNet, keypoint_loss
from lisa_video.errors import UserError
from lisa_video.figures.config import DetectorConfig
from lisa_video.figures.dataset import render_clips
from lisa_video.figures.stages import rendered_figures, to_pixels
from lisa_video.metrics.pose import pck

_HELD_OUT_CLIPS = 60


def train_detector(config: DetectorConfig, motion_folder: Path) -> dict[str, float]:
    """Train, save to `config.output` and return PCK@0.1 and PCK@0.2 on held-out recordings.

    Raises:
        UserError: the output folder exists.
    """
    if config.output.exists():
        raise UserError(f"{config.output}: exists already; choose another --output")
    if config.threads:
        torch.set_num_threads(config.threads)
    figures = rendered_figures(config.figures, config.rendered, motion_folder)
    frames = figures.frames.reshape(-1, *figures.frames.shape[2:])
    keypoints = torch.from_numpy(figures.keypoints.reshape(-1, *figures.keypoints.shape[3:]))
    vae = None
    if config.vae is not None:
        vae = AutoencoderKL.from_pretrained(config.vae, subfolder="vae").eval()

    torch.manual_seed(config.seed)
    network = FigureKeypointNet(size=config.figures.size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps)
    progress = tqdm(range(config.steps), desc="detector", unit="step")
    for step in progress:
        generator = torch.Generator().manual_seed(config.seed * 10_000_019 + step)
        picks = torch.randint(len(frames), (config.batch_size,), generator=generator)
        pixels, wanted = degrade(to_pixels(frames[picks.numpy()]), keypoints[picks], vae, generator)
        logits, presence = network(pixels)
        loss = keypoint_loss(logits, presence, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    network.eval().half().save_pretrained(config.output)
    scores = score_on_held_out(config, motion_folder)
    (config.output / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    return scores


@torch.no_grad()
def degrade(
    pixels: Tensor, keypoints: Tensor, vae: AutoencoderKL | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Make renders look generated: VAE round trip of half, shift and zoom, noise, contrast.

    Args:
        pixels: (B, 3, H, W) in [-1, 1].
        keypoints: (B, K, 3) in pixels; they move with the picture.

    Returns:
        pixels and keypoints of the same shapes.
    """
    batch, side = len(pixels), pixels.shape[-1]
    if vae is not None:
        half = batch // 2
        latents = vae.encode(pixels[:half]).latent_dist.mean
        spread = latents.std() * 0.15 * torch.rand((half, 1, 1, 1), generator=generator)
        latents = latents + spread * torch.randn(latents.shape, generator=generator)
        pixels = torch.cat([vae.decode(latents).sample, pixels[half:]])
    zoom = 1 + 0.3 * (torch.rand(batch, generator=generator) - 0.5)
    shift = 0.2 * (torch.rand((batch, 2), generator=generator) - 0.5)
    # Output position p (in [-1, 1]) shows input position zoom * p + shift.
    matrix = torch.zeros(batch, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = shift
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    place = (keypoints[..., :2] / side * 2 - 1 - shift[:, None]) / zoom[:, None, None]
    inside = (place.abs() <= 1).all(-1, keepdim=True)
    moved = torch.cat([(place + 1) / 2 * side, keypoints[..., 2:] * inside], dim=-1)
    contrast = 1 + 0.3 * (torch.rand((batch, 1, 1, 1), generator=generator) - 0.5)
    noise = 0.06 * torch.rand((batch, 1, 1, 1), generator=generator)
    return pixels * contrast + noise * torch.randn(pixels.shape, generator=generator), moved


def score_on_held_out(config: DetectorConfig, motion_folder: Path) -> dict[str, float]:
    """The saved network's accuracy on renders of the held-out recordings."""
    detector = FigureDetector(config.output)
    held_out = replace(config.figures, clips=_HELD_OUT_CLIPS)
    clips = list(render_clips(held_out, motion_folder, held_out=True))
    found = np.concatenate([detector.detect(clip.frames) for clip in clips])
    truth = np.concatenate([clip.keypoints for clip in clips])
    return {f"pck@{threshold}": pck(found, truth, threshold).value for threshold in (0.1, 0.2)}
