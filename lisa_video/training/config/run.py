"""All settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.attention_config import AttentionChoice
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config.backbone import BackboneConfig
from lisa_video.training.config.data import DataConfig
from lisa_video.training.config.networks import SideNetworkConfig
from lisa_video.training.config.objective import (
    AlignmentConfig,
    LossConfig,
    TimestepConfig,
    aligned_count,
)
from lisa_video.training.config.observation import ProbeConfig
from lisa_video.training.config.optimizer import EmaConfig, OptimizerConfig

Objective = Literal["plain", "lisa"]
Precision = Literal["no", "bf16", "fp16"]


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
    loss: LossConfig = field(default_factory=LossConfig)
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
    offload: Literal["none", "encoders"] = "none"
    """encoders: VAE and text encoder wait in main memory, and are on the device only while they
    encode; slower, and needless with `data.cache`, which never loads them."""
    log_every: int = 10
    """Steps between lines of log.jsonl and TensorBoard."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step has one too."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    resume: Literal["auto", "never"] = "auto"
    """auto: a repeated command goes on from the last checkpoint; never: refuse such a folder."""

    def __post_init__(self) -> None:
        at_least(
            1,
            steps=self.steps,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        at_least(0, seed=self.seed)
        for name, share in (
            ("text_dropout", self.text_dropout),
            ("pose_dropout", self.pose_dropout),
        ):
            if not 0 <= share <= 1:
                raise UserError(f"{name}={share}: a share lies in [0, 1]")
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
