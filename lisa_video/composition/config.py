"""Settings of the test of composition. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lisa_video.comparison.config import HeldOutScoreConfig
from lisa_video.condition_config import ConditionKind
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import Objective, TrainConfig


@dataclass(frozen=True)
class CompositionScoreConfig(HeldOutScoreConfig):
    """Generation for held-out conditions, and what looks at the results."""

    edge_tolerance: int = 1
    """Pixels between two edges that still meet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, "score", edge_tolerance=self.edge_tolerance)


@dataclass(frozen=True)
class ComposeConfig:
    """Train one side network for each control, apart, and use them together."""

    training: TrainConfig
    """What all arms share; objective, seed and data.condition are set for each, and its `output` is
    the folder of the whole."""
    controls: list[ConditionKind] = field(default_factory=lambda: ["pose", "edges"])
    """Kinds of condition, each trained alone."""
    scales: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """Factor of each control's residuals when they are used together."""
    objectives: list[Objective] = field(default_factory=lambda: ["plain", "lisa"])
    """Objectives that are compared."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds, each for every arm."""
    score: CompositionScoreConfig = field(default_factory=CompositionScoreConfig)
    threads: int = 0
    """Torch threads; 0 takes torch's default."""

    def __post_init__(self) -> None:
        for name, least in (("controls", 2), ("objectives", 1), ("seeds", 1)):
            values = getattr(self, name)
            if len(values) < least or len(set(values)) != len(values):
                raise UserError(f"{name}={values}: give at least {least}, each once")
        if len(self.scales) != len(self.controls):
            raise UserError(
                f"scales={self.scales}: give one for each of controls, which are {self.controls}"
            )
        at_least(0, threads=self.threads)


@dataclass(frozen=True)
class Arm:
    """One training."""

    objective: Objective
    control: ConditionKind
    seed: int


def arm_config(config: ComposeConfig, arm: Arm) -> TrainConfig:
    """The training run of an arm, in a folder of its own below `training.output`."""
    base = config.training
    name = f"{arm.objective}-{arm.control}-seed{arm.seed}"
    return replace(
        base,
        output=base.output / "arms" / name,
        objective=arm.objective,
        seed=arm.seed,
        data=replace(base.data, condition=arm.control),
    )
