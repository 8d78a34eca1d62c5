"""Settings of the comparison of both objectives. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Literal, Protocol

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import Objective, TrainConfig

PoseInit = Literal["zero", "normal"]


@dataclass(frozen=True)
class GridConfig:
    """What is searched. The plain objective has no decoder: `lr` and `pose_init` are all it has."""

    lr: list[float] = field(default_factory=lambda: [2e-4])
    """Learning rates, for both objectives."""
    pose_init: list[PoseInit] = field(default_factory=lambda: ["zero"])
    """Starts of the pose encoder, for both objectives."""
    alignment_weight: list[float] = field(default_factory=lambda: [0.2])
    """Weights of the alignment loss."""
    tap: list[str] = field(default_factory=lambda: ["down_3"])
    """Features that the LISA decoder reads."""
    decoder_lr_scale: list[float] = field(default_factory=lambda: [1.0])
    """Learning rates of the LISA decoder, as multiples of the side network's."""

    def __post_init__(self) -> None:
        for name in ("lr", "pose_init", "alignment_weight", "tap", "decoder_lr_scale"):
            if not getattr(self, name):
                raise UserError(f"grid.{name} is empty: give at least one value")


@dataclass(frozen=True)
class HeldOutScoreConfig:
    """How arms are scored: generation for held-out clips, and detection on what came out."""

    clips: int = 8
    """Held-out clips, the first of the validation split."""
    inference_steps: int = 15
    """Sampler steps."""
    guidance_scale: float = 2.0
    """Classifier-free guidance of the text; at most 1 is none."""
    detector: str = "figures"
    """Name of the pose detector; its own score on the true clips is reported as the ceiling."""
    detector_weights: Path | None = None
    """Folder of the detector's weights, where it is not the shipped one."""
    seed: int = 0
    """Seed of the initial noise, the same for every arm and step."""

    def __post_init__(self) -> None:
        at_least(1, "score", clips=self.clips, inference_steps=self.inference_steps)
        at_least(0, "score", seed=self.seed)


@dataclass(frozen=True)
class ScoreConfig(HeldOutScoreConfig):
    """The same while arms train."""

    at: list[int] = field(default_factory=lambda: [100, 200, 300, 400, 500])
    """Steps at which every arm generates and is scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.at or sorted(set(self.at)) != self.at or self.at[0] < 1:
            raise UserError(f"score.at={self.at}: give increasing steps, each at least 1")


class HoldsOut(Protocol):
    """A config of arms that generate for the same held-out clips."""

    @property
    def training(self) -> TrainConfig:
        """What all arms share."""

    @property
    def score(self) -> HeldOutScoreConfig:
        """How they are scored."""


class Scored(HoldsOut, Protocol):
    """A config of arms that are trained alike and scored alike."""

    @property
    def seeds(self) -> list[int]:
        """Each for every arm."""

    @property
    def score(self) -> ScoreConfig:
        """How they are scored."""


def check_scored(config: Scored) -> None:
    """Raise UserError where the seeds or the scored steps are none that arms can be compared by."""
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise UserError(f"seeds={config.seeds}: give at least one, each once")
    if config.score.at[-1] != config.training.steps:
        raise UserError(
            f"score.at ends at {config.score.at[-1]}, training.steps is {config.training.steps}: "
            "the last step must be scored"
        )
    if not config.training.probe.every:
        raise UserError("training.probe.every=0: arms are compared by the adherence probe")


@dataclass(frozen=True)
class FvdConfig:
    """FVD of what the finished arms generate against the held-out clips themselves."""

    clips: int = 0
    """Held-out clips, the first of the validation split; 0 leaves FVD out."""
    frames: int = 9
    """Frames per clip, which need not be those of training; I3D wants at least 9."""
    preset: str = "stylegan-v"
    """Protocol, written beside every value."""
    network: str = "i3d"
    """i3d, fetched once, or a network's file or folder as evaluate.py takes it."""

    def __post_init__(self) -> None:
        if self.clips < 0 or self.clips == 1:
            raise UserError(f"fvd.clips={self.clips}: give at least 2, or 0 for no FVD")
        if self.frames < 1:
            raise UserError(f"fvd.frames={self.frames}: must be at least 1")


@dataclass(frozen=True)
class CompareConfig:
    """Train both objectives from the same starts, seeds and data order, and compare them."""

    training: TrainConfig
    """What all arms share; its objective, seed and the searched settings are set for each arm, and
    its `output` is the folder of the comparison."""
    grid: GridConfig = field(default_factory=GridConfig)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds, each for every arm."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    fvd: FvdConfig = field(default_factory=FvdConfig)
    breakthrough_fraction: float = 0.5
    """An arm breaks through where its adherence gap passes this share of the final plain gap."""
    threads: int = 0
    """Torch threads; 0 takes torch's default."""

    def __post_init__(self) -> None:
        check_scored(self)
        if not 0 < self.breakthrough_fraction < 1:
            raise UserError("breakthrough_fraction must lie between 0 and 1")


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    objective: Objective
    lr: float
    pose_init: PoseInit
    alignment_weight: float | None = None
    tap: str | None = None
    decoder_lr_scale: float | None = None

    @property
    def name(self) -> str:
        name = f"{self.objective}-lr{self.lr:g}-{self.pose_init}"
        if self.objective == "plain":
            return name
        return f"{name}-w{self.alignment_weight:g}-{self.tap}-d{self.decoder_lr_scale:g}"


def settings(grid: GridConfig) -> list[Setting]:
    """All points: those of the plain objective first."""
    shared = list(product(grid.lr, grid.pose_init))
    plain = [Setting("plain", lr, init) for lr, init in shared]
    lisa = [
        Setting("lisa", lr, init, weight, tap, scale)
        for (lr, init), weight, tap, scale in product(
            shared, grid.alignment_weight, grid.tap, grid.decoder_lr_scale
        )
    ]
    return plain + lisa


def arm_config(config: CompareConfig, setting: Setting, seed: int) -> TrainConfig:
    """The training run of one setting and seed."""
    base = config.training
    alignment = base.alignment
    if setting.objective == "lisa":
        assert setting.alignment_weight and setting.tap and setting.decoder_lr_scale
        alignment = replace(
            alignment,
            weight=setting.alignment_weight,
            tap=setting.tap,
            decoder_lr_scale=setting.decoder_lr_scale,
        )
    return replace(
        base,
        output=arm_folder(base.output, setting, seed),
        objective=setting.objective,
        seed=seed,
        side_network=replace(base.side_network, pose_init=setting.pose_init),
        optimizer=replace(base.optimizer, lr=setting.lr),
        alignment=alignment,
    )


def arm_folder(output: Path, setting: Setting, seed: int) -> Path:
    """Where the run of one setting and seed lives."""
    return output / "arms" / f"{setting.name}-seed{seed}"
