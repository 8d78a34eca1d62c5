"""Settings of one training run. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.errors import UserError

Objective = Literal["plain", "lisa"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen main network."""

    path: str
    """Folder or hub name of a diffusers checkpoint."""
    kind: str = "animatediff"
    """Entry of the table of backbones: animatediff, wan or cogvideox."""
    motion_adapter: str | None = None
    """AnimateDiff: folder or hub name of the motion adapter, where `path` is Stable Diffusion's."""
    beta_schedule: str | None = None
    """AnimateDiff: replaces the scheduler's; released motion adapters were trained with "linear"."""
    text_tokens: int | None = None
    """Wan, CogVideoX: length that prompts are padded to; null: as diffusers pads (512, 226)."""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("backbone.path is empty: give a folder or a hub name")
        if self.text_tokens is not None:
            _at_least(1, "backbone", text_tokens=self.text_tokens)


@dataclass(frozen=True)
class DataConfig:
    """Clips with poses, and how they are cut and batched."""

    root: Path
    """Folder of the dataset, with its manifest.jsonl."""
    split: str = "train"
    """Split that is trained on."""
    validation_split: str = "validation"
    """Split of the adherence probe."""
    frames: int = 8
    """Frames per training clip; 1 + 4k for Wan, 1 + 8k for CogVideoX."""
    stride: int = 1
    """Video frames from one training frame to the next."""
    max_stride: int | None = None
    """Where given, each window has a stride from `stride` to this, as far as its clip is long."""
    fps: float | None = None
    """Where given, frames are taken by time, and strides count frames of this many a second: clips
    of 24, 25, 30 and 60 fps then move alike. Give the rate that the backbone was trained at."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    buckets: list[tuple[int, int, int]] = field(default_factory=list)
    """Frames, width and height of several shapes, [[81, 832, 480], [49, 480, 832]]: each clip is
    trained in the one that suits it best, each step in one. `frames` and `size` are then those of
    held-out clips alone. Empty: one shape, of `frames` and `size`."""
    views: int = 0
    """0: new windows, cuts and flips in every epoch; n: each clip has n of them that come back,
    so that what is made from them can be kept."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    batch_size: int = 8
    """Clips per process and forward pass."""
    workers: int = 0
    """Processes that read ahead; 0 reads in the training process."""
    cache_in_memory: bool = False
    """Keep decoded clips in memory, in each reading process; for sets that fit."""
    cache_encodings: bool = False
    """Keep the latents of every window and the text states of every caption in memory, too."""
    check_clips: bool = True
    """Open every clip before the first step. Switch it off for a large set that has been validated:
    a clip that cannot be read then stops the run when its turn comes."""

    def __post_init__(self) -> None:
        _at_least(1, "data", frames=self.frames, stride=self.stride, batch_size=self.batch_size)
        _at_least(0, "data", workers=self.workers, views=self.views)
        if self.max_stride is not None:
            _at_least(self.stride, "data", max_stride=self.max_stride)
        if self.fps is not None:
            _positive("data", fps=self.fps)
        if min(self.size) < 1:
            raise UserError(f"data.size={list(self.size)}: width and height must be at least 1")
        for place, bucket in enumerate(self.buckets):
            if min(bucket) < 1:
                raise UserError(
                    f"data.buckets[{place}]={list(bucket)}: frames, width and height must be at "
                    "least 1"
                )
            if bucket in self.buckets[:place]:
                raise UserError(f"data.buckets[{place}]={list(bucket)}: is listed twice")


@dataclass(frozen=True)
class SideNetworkConfig:
    """The trained network."""

    injection: list[str | int] | dict[str, int] | Literal["all"] = "all"
    """Injection points with a zero projection: names such as [down_5, mid] or indices such as
    [0, 3, 6], {stride: k} for every k-th from the first, {even: n} for the last of each of n equal
    groups, or all."""
    hidden_size: int | None = None
    """Wan, CogVideoX: width of the copied blocks, whole attention heads; null: the backbone's."""
    pose_init: Literal["zero", "normal"] = "zero"
    """Start of the pose encoder: zero as in ControlNet, or normal: poses are seen at once."""
    init_from: Path | None = None
    """Folder of a side network of this backbone to start from, instead of a copy of the backbone;
    the settings above are then that network's."""
    controlnet: str | None = None
    """AnimateDiff: folder or hub name of a diffusers ControlNet to start from; only the motion
    modules stay the backbone's. Step 0 is then that ControlNet's control, frame by frame, and
    `pose_init` has no effect."""

    def __post_init__(self) -> None:
        if not self.injection:
            raise UserError("side_network.injection is empty: name injection points, or 'all'")
        if self.init_from is not None and self.controlnet is not None:
            raise UserError("side_network: give either init_from or controlnet")


@dataclass(frozen=True)
class AlignmentConfig:
    """The alignment loss; without effect on the plain objective."""

    weight: float = 0.2
    """lambda: weight of the alignment loss beside the main loss."""
    tap: str = "down_5"
    """Injection point whose feature the LISA decoder reads, such as down_5 or block_3."""
    frame_weighting: bool = True
    """Weigh each frame by the confidence of its keypoints."""
    decoder_lr_scale: float = 1.0
    """Learning rate of the LISA decoder as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        _positive("alignment", weight=self.weight, decoder_lr_scale=self.decoder_lr_scale)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a constant learning rate after a linear warm-up."""

    lr: float = 1e-5
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the moment estimates."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to `lr`."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, once per step."""
    gradient_accumulation_steps: int = 1
    """Forward passes per step."""

    def __post_init__(self) -> None:
        _positive("optimizer", lr=self.lr, max_grad_norm=self.max_grad_norm)
        _at_least(0, "optimizer", warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)
        steps = self.gradient_accumulation_steps
        _at_least(1, "optimizer", gradient_accumulation_steps=steps)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={list(self.betas)}: both must lie in [0, 1)")


@dataclass(frozen=True)
class EmaConfig:
    """The average of the side network's weights, which is what is saved for use."""

    decay: float = 0.999
    """Decay per step, smaller during the first steps; 0 saves the last weights themselves."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"ema.decay={self.decay}: must lie in [0, 1)")


@dataclass(frozen=True)
class TimestepConfig:
    """Which noise levels are trained."""

    shift: float = 1.0
    """1 draws timesteps uniformly, above 1 towards high noise."""

    def __post_init__(self) -> None:
        _positive("timesteps", shift=self.shift)


@dataclass(frozen=True)
class ProbeConfig:
    """The adherence probe: losses on held-out clips with true, shuffled and no poses."""

    every: int = 500
    """Steps between probes; 0 never probes."""
    clips: int = 16
    """Held-out clips: the first ones of the validation split."""
    draws: int = 4
    """Noise levels per clip, the same at every probe."""
    seed: int = 0
    """Seed of windows, noise, timesteps and shuffling; the same for runs to be compared."""

    def __post_init__(self) -> None:
        _at_least(0, "probe", every=self.every)
        _at_least(2, "probe", clips=self.clips)
        _at_least(1, "probe", draws=self.draws)


@dataclass(frozen=True)
class TrainConfig:
    """Train a pose side network on a frozen video backbone."""

    backbone: BackboneConfig
    data: DataConfig
    output: Path
    """Folder of the run: log, checkpoints, and the finished `side_network/` and `decoder/`."""
    objective: Objective = "lisa"
    """plain: the main loss alone; lisa: with the alignment loss."""
    steps: int = 10_000
    """Optimizer steps."""
    seed: int = 0
    """Seed of initial weights, data order, noise and dropout; the same under both objectives."""
    side_network: SideNetworkConfig = field(default_factory=SideNetworkConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    text_dropout: float = 0.1
    """Share of captions replaced by the empty one."""
    pose_dropout: float = 0.0
    """Share of clips whose poses are withheld: black pose frames, and no alignment loss."""
    mixed_precision: Precision = "no"
    """Arithmetic of the networks; trained weights stay float32, the backbone is stored in it."""
    attention: AttentionChoice = "auto"
    """Attention kernel of backbone and side network; the one chosen is printed. auto: on CUDA the
    first of flash, xformers and sdpa that runs, elsewhere sdpa, torch's own choice."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    log_every: int = 10
    """Steps between lines of log.jsonl and TensorBoard."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step has one too."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    resume: Literal["auto", "never"] = "auto"
    """auto: a repeated command goes on from the last checkpoint; never: refuse such a folder."""

    def __post_init__(self) -> None:
        _at_least(
            1,
            "",
            steps=self.steps,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        _at_least(0, "", seed=self.seed)
        for name, share in (
            ("text_dropout", self.text_dropout),
            ("pose_dropout", self.pose_dropout),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"{name}={share}: a share lies in [0, 1]")
        injection = self.side_network.injection
        named = isinstance(injection, list) and all(isinstance(name, str) for name in injection)
        if self.objective == "lisa" and named and self.alignment.tap not in injection:
            raise UserError(
                f"alignment.tap={self.alignment.tap}: the feature must be that of an injection "
                f"point, and side_network.injection has only {', '.join(map(str, injection))}"
            )


def _at_least(least: float, section: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= least):
            raise UserError(f"{_key(section, name)}={value}: must be at least {least}")


def _positive(section: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{_key(section, name)}={value}: must be above 0")


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name
