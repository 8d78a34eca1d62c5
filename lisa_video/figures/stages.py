"""What the trainings on rendered figures share: the frames, resumable stages, and saved latents.

Shape legend: N clips, F frames, H W pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import EMAModel
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm

from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig
from lisa_video.figures.dataset import render_clips
from lisa_video.reports import replace_file


@dataclass(frozen=True)
class FigureFrames:
    """All rendered clips.

    Attributes:
        frames: uint8 (N, F, H, W, 3).
        keypoints: float32 (N, F, 1, 18, 3), pixels and confidence.
        captions: N sentences.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    captions: list[str]


def rendered_figures(config: FiguresConfig, folder: Path, motion_folder: Path) -> FigureFrames:
    """Render the training split into `folder`, or read it back if it was rendered there before."""
    path = folder / "figures.npz"
    settings = json.dumps(asdict(config) | {"workers": None}, sort_keys=True)
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["settings"]) == settings:
                captions = [str(caption) for caption in stored["captions"]]
                return FigureFrames(stored["frames"], stored["keypoints"], captions)
    rendering = render_clips(config, motion_folder)
    clips = list(tqdm(rendering, total=config.clips, desc="render", unit="clip"))
    figures = FigureFrames(
        frames=np.stack([clip.frames for clip in clips]),
        keypoints=np.stack([clip.keypoints for clip in clips]),
        captions=[clip.caption for clip in clips],
    )
    folder.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        np.savez(
            temporary,
            frames=figures.frames,
            keypoints=figures.keypoints,
            captions=np.array(figures.captions),
            settings=np.array(settings),
        )

    replace_file(path, write)
    return figures


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return rearrange(torch.from_numpy(frames), "... h w c -> ... c h w").float() / 127.5 - 1


class Stage:
    """Steps of one training stage with a progress bar, one learning-rate schedule and checkpoints.

    With `ema`, its decay, the weights are averaged: see `take_average`. The weight matrices in
    `muon` are trained by Muon (Jordan et al., 2024, with the learning rate of AdamW as in
    arXiv:2502.16982), all else by AdamW.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        modules: dict[str, nn.Module],
        *,
        lr: float,
        steps: int,
        checkpoint_minutes: float,
        beta2: float = 0.999,
        ema: float | None = None,
        muon: nn.Module | None = None,
    ) -> None:
        self.name, self.steps, self.modules = name, steps, modules
        self.parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        matrices = [] if muon is None else [p for p in muon.parameters() if p.ndim == 2]
        self.optimizers = _optimizers(self.parameters, matrices, lr, beta2)
        warmup = max(1, min(200, steps // 10))
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda step: (
                    min(1.0, (step + 1) / warmup)
                    * (0.5 + 0.5 * float(np.cos(np.pi * min(step / steps, 1))))
                ),
            )
            for optimizer in self.optimizers
        ]
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.pt"
        self.log_path = folder / f"{name}.jsonl"
        self.every = 60 * checkpoint_minutes
        self.step = 0
        self.average = (
            None
            if ema is None
            else EMAModel(self.parameters, decay=ema, use_ema_warmup=True, power=0.75)
        )
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            for key, module in modules.items():
                module.load_state_dict(state["modules"][key])
            for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            for schedule, values in zip(self.schedules, state["schedules"], strict=True):
                schedule.load_state_dict(values)
            self.step = state["step"]
            if self.average is not None:
                self.average.load_state_dict(state["average"])

    def run(self) -> Iterator[int]:
        """Yield step numbers from where the last run stopped; the caller calls `update` in each."""
        saved = time.monotonic()
        with tqdm(total=self.steps, initial=self.step, desc=self.name, unit="step") as self.bar:
            while self.step < self.steps:
                yield self.step
                self.step += 1
                self.bar.update()
                if time.monotonic() - saved > self.every or self.step == self.steps:
                    self.save()
                    saved = time.monotonic()

    def update(self, loss: Tensor, **figures: float) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if self.average is not None:
            self.average.step(self.parameters)
        if self.step % 20 == 0:
            row = {"step": self.step, "loss": loss.item(), **figures}
            self.bar.set_postfix({k: f"{v:.4f}" for k, v in row.items() if k != "step"})
            with self.log_path.open("a") as log:
                log.write(json.dumps(row) + "\n")

    def take_average(self) -> None:
        """Put the averaged weights into the modules."""
        assert self.average is not None
        self.average.copy_to(self.parameters)

    def save(self) -> None:
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "step": self.step,
            "average": None if self.average is None else self.average.state_dict(),
        }
        replace_file(self.path, lambda temporary: torch.save(state, temporary))


def _optimizers(
    parameters: list[nn.Parameter], matrices: list[nn.Parameter], lr: float, beta2: float
) -> list[torch.optim.Optimizer]:
    ids = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in ids]
    settings: dict[str, Any] = {"lr": lr, "weight_decay": 0.01}
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, beta2), **settings)]
    if matrices:
        if not hasattr(torch.optim, "Muon"):
            raise UserError(
                f"this training needs torch 2.9 or newer, for Muon; here is {torch.__version__}"
            )
        made.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **settings))
    return made


def autoencoder_loss(
    posterior: DiagonalGaussianDistribution,
    decoded: Tensor,
    pixels: Tensor,
    kl_weight: float,
    weights: Tensor | float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """Squared error, some absolute error and a weak KL term; the loss, and its terms to log.

    Squared error leads: under absolute error alone the walls, most of every picture, outweigh the
    figure, and thin limbs stay blurred for thousands of steps. `weights` are those of the pixels.
    """
    squared, absolute = (
        (weights * error).mean() for error in ((decoded - pixels) ** 2, (decoded - pixels).abs())
    )
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss = squared + 0.1 * absolute + kl_weight * kl
    return loss, {"squared": squared.item(), "kl": kl.item()}


def step_generator(seed: int, stage: int, step: int) -> torch.Generator:
    """Randomness of one step, the same whether or not the run was interrupted."""
    return torch.Generator().manual_seed((seed * 1_000_003 + stage) * 10_000_019 + step)


def stored_tensor(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor kept in `path`; made, and kept there, the first time."""
    if path.exists():
        stored: Tensor = torch.load(path, weights_only=True)
        return stored
    made = make()
    replace_file(path, lambda temporary: torch.save(made, temporary))
    return made


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> Path:
    """Write a complete pipeline folder in float16 safetensors."""
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder)
    # transformers loads in the dtype that config.json names, diffusers in float32: name the same.
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2))
    return folder
