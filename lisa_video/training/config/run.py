"""All settings of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config.backbone import BackboneConfig
from lisa_video.training.config.data import DataConfig
from lisa_video.training.config.networks import LoraConfig, SideNetworkConfig
from lisa_video.training.config.objective import (
    AlignmentConfig,
    LossConfig,
    TimestepConfig,
    aligned_count,
)
from lisa_video.training.config.observation import (
    ProbeConfig,
    TrackerName,
    ValidationConfig,
    WandbConfig,
)
from lisa_video.training.config.optimizer import EmaConfig, OptimizerConfig

CONFIG_VERSION = 1
"""Count up where settings change their meaning."""
MORE_IS_BETTER = {
    "probe/gap": True,
    "probe/explained": True,
    "probe/true": False,
    "validation/pck@0.1": True,
    "validation/pck@0.2": True,
    "validation/keypoint_distance": False,
    "loss": False,
    "main": False,
}
"""The metrics that checkpoints can be kept by."""
CHANGES = ("data", "code", "settings")

Objective = Literal["plain", "lisa"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainConfig:
    """Train a pose side network on a frozen video backbone."""

    backbone: BackboneConfig
    data: DataConfig
    output: Path
    """Folder of the run: log, checkpoints, and the finished `side_network/`, `decoder/` and `lora/`."""
    objective: Objective = "lisa"
    """plain: the main loss alone; lisa: with the alignment loss."""
    steps: int = 10_000
    """Optimizer steps."""
    seed: int = 0
    """Seed of initial weights, data order, noise and dropout; the same under both objectives."""
    side_network: SideNetworkConfig = field(default_factory=SideNetworkConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    trackers: list[TrackerName] = field(default_factory=lambda: ["tensorboard"])
    """Who gets what log.jsonl gets, and the validation videos; wandb needs the extra of that name."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
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
    offload: Literal["none", "encoders"] = "none"
    """encoders: VAE and text encoder wait in main memory, and are on the device only while they
    encode; slower, and needless with `data.cache`, which never loads them."""
    log_every: int = 10
    """Steps between lines of log.jsonl and of the trackers."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step has one too."""
    checkpoint_minutes: float = 0.0
    """Minutes between checkpoints, too; 0: by steps alone."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 0
    """Further checkpoints kept: those whose step has the best `best_metric` in the log."""
    best_metric: str = "probe/gap"
    """What `keep_best` goes by: probe/gap, probe/explained, validation/pck@0.1 or another that is
    logged; an unknown one lists the known ones. Whether more is better follows from its name."""
    resume: str = "auto"
    """auto: a repeated command goes on from the last checkpoint; never: refuse such a folder; the
    folder of a checkpoint of another run: a new run goes on from there, with that run's log."""
    allow_changed: str = ""
    """What may differ from the run that goes on, separated by commas: data (clips or poses), code
    (lisa_video, torch or diffusers), settings (only where `resume` names a checkpoint)."""
    version: int = CONFIG_VERSION
    """Version of this format; a newer one than that of this lisa_video is refused."""

    def __post_init__(self) -> None:
        at_least(
            1,
            steps=self.steps,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        at_least(
            0, seed=self.seed, checkpoint_minutes=self.checkpoint_minutes, keep_best=self.keep_best
        )
        if self.version > CONFIG_VERSION:
            raise UserError(
                f"version={self.version}: these settings are of a newer lisa_video, this one reads "
                f"up to version {CONFIG_VERSION}; update it"
            )
        self._check_best()
        unknown = sorted(self.allowed_changes - set(CHANGES))
        if unknown:
            raise UserError(f"allow_changed: unknown '{unknown[0]}', known: {', '.join(CHANGES)}")
        if not self.resume:
            raise UserError("resume is empty: give auto, never or the folder of a checkpoint")
        for name, share in (
            ("text_dropout", self.text_dropout),
            ("pose_dropout", self.pose_dropout),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"{name}={share}: a share lies in [0, 1]")
        if len(set(self.trackers)) != len(self.trackers):
            raise UserError(f"trackers={self.trackers}: name each once")
        falls_until = self.optimizer.falls_until(self.steps)
        if falls_until is not None and self.optimizer.warmup_steps >= falls_until:
            raise UserError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps}: the learning rate has to "
                f"fall after it, and {falls_until} steps leave no room"
            )
        if self.objective == "lisa":
            self._check_alignment()

    def _check_alignment(self) -> None:
        alignment, injection = self.alignment, self.side_network.injection
        if isinstance(injection, list) and all(isinstance(name, str) for name in injection):
            for tap in alignment.taps:
                if tap not in injection:
                    raise UserError(
                        f"alignment.tap={tap}: the feature must be that of an injection point, "
                        f"and side_network.injection has only {', '.join(map(str, injection))}"
                    )
        if alignment.every > self.steps:
            raise UserError(
                f"alignment.every={alignment.every}: none of the {self.steps} steps would have "
                "an alignment loss"
            )
        batch = self.data.batch_size
        if alignment.fraction < 1 and aligned_count(batch, alignment.fraction) == batch:
            raise UserError(
                f"alignment.fraction={alignment.fraction}: is all of a batch of {batch}; "
                "give a smaller one, or use alignment.every"
            )

    @property
    def allowed_changes(self) -> set[str]:
        """What `allow_changed` names."""
        return {name.strip() for name in self.allow_changed.split(",")} - {""}

    @property
    def forked_from(self) -> Path | None:
        """The checkpoint of another run that `resume` names."""
        return None if self.resume in ("auto", "never") else Path(self.resume)

    def _check_best(self) -> None:
        if self.best_metric not in MORE_IS_BETTER:
            raise UserError(
                f"best_metric: unknown '{self.best_metric}', known: {', '.join(MORE_IS_BETTER)}"
            )
        if not self.keep_best:
            return
        section, separator, _ = self.best_metric.partition("/")
        key = f"{section}.every" if separator else "log_every"
        every = getattr(self, section).every if separator else self.log_every
        if not every or math.lcm(every, self.checkpoint_every) > self.steps:
            raise UserError(
                f"keep_best={self.keep_best}: no step has both a checkpoint (checkpoint_every="
                f"{self.checkpoint_every}) and a value of {self.best_metric} ({key}={every})"
            )
