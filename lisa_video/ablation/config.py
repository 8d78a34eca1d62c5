"""Settings of an ablation. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lisa_video.cli import with_changes
from lisa_video.comparison.config import ScoreConfig, check_scored
from lisa_video.config_checks import at_least
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig

# What arms share, so that they start alike, see the same clips and are measured by the same clips and
# noise levels, which follow the shift.
SHARED = (
    "backbone",
    "data",
    "output",
    "steps",
    "seed",
    "probe",
    "resume",
    "log_every",
    "mixed_precision",
    "timesteps.shift",
    "timesteps.shift_at",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class AblateConfig:
    """Train arms that differ in declared settings, from the same starts and data order."""

    training: TrainConfig
    """What all arms share; its `output` is the folder of the ablation, and every step is logged."""
    arms: dict[str, dict[str, Any]]
    """Name -> settings of the training that are changed in this arm, such as {alignment.every: 2}."""
    reference: str = "plain"
    """The arm whose final values the others are to reach, and whose time they are measured by."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds, each for every arm."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    threads: int = 0
    """Torch threads; 0 takes torch's default."""

    def __post_init__(self) -> None:
        at_least(0, threads=self.threads)
        check_scored(self)
        if self.reference not in self.arms:
            raise UserError(
                f"reference={self.reference}: is none of the arms {', '.join(self.arms)}"
            )
        for name, changes in self.arms.items():
            _check_arm(name, changes)
            arm_config(self, name, self.seeds[0])


def arm_config(config: AblateConfig, name: str, seed: int) -> TrainConfig:
    """The training run of one arm and seed; UserError where its settings do not fit."""
    base = replace(
        config.training,
        output=arm_folder(config.training.output, name, seed),
        seed=seed,
        log_every=1,
    )
    return with_changes(base, config.arms[name], f"arms.{name}")


def arm_folder(output: Path, name: str, seed: int) -> Path:
    """Where the run of one arm and seed lives."""
    return output / "arms" / f"{name}-seed{seed}"


def _check_arm(name: str, changes: Mapping[str, Any]) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(f"arms: '{name}' names a folder: use letters, digits, dots, - and _")
    for key in _dotted(changes):
        if any(f"{key}.".startswith(f"{shared}.") for shared in SHARED):
            raise UserError(f"arms.{name}: {key} is the same for all arms; set it in training")


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
