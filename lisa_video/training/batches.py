"""The order in which training sees clips, a function of (seed, position).

A clip's position is the number of clips drawn before it; every epoch is a fresh permutation, and
batches run over its end. A step takes the next `clips_per_step` positions whichever way they are
spread over accumulated passes and processes, so a run goes on from a step without further state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader, Dataset

from lisa_video.dataset import Clip, ClipBatch, ClipDataset, collate
from lisa_video.training.config import TrainConfig


@dataclass(frozen=True)
class Batch:
    """Clips of one forward pass."""

    clips: ClipBatch
    positions: list[int]
    """Position of each clip."""


class _ClipsByPosition(Dataset[tuple[int, Clip]]):
    """A clip set as an endless row of epochs; any process can read any position of it."""

    def __init__(self, clips: ClipDataset, seed: int) -> None:
        self.clips, self.seed = clips, seed

    def __getitem__(self, position: int) -> tuple[int, Clip]:
        epoch, place = divmod(position, len(self.clips))
        index = epoch_order(len(self.clips), self.seed, epoch)[place]
        return position, self.clips.clip(int(index), epoch)


class BatchStream:
    """What one process of a run reads, pass after pass."""

    def __init__(
        self, clips: ClipDataset, config: TrainConfig, *, process: int = 0, processes: int = 1
    ) -> None:
        self.row = _ClipsByPosition(clips, config.seed)
        self.data, self.passes = config.data, config.optimizer.gradient_accumulation_steps
        self.process, self.processes = process, processes

    @property
    def clips_per_step(self) -> int:
        return self.data.batch_size * self.passes * self.processes

    def batches(self, steps_done: int) -> Iterator[Batch]:
        """Batches from after `steps_done` steps on, without end."""
        loader = DataLoader(
            self.row,
            batch_sampler=self._positions(steps_done),  # type: ignore[arg-type]
            num_workers=self.data.workers,
            collate_fn=_collate,
        )
        return iter(loader)

    def _positions(self, steps_done: int) -> Iterator[list[int]]:
        size, stride = self.data.batch_size, self.data.batch_size * self.processes
        first = steps_done * self.clips_per_step + self.process * size
        while True:
            yield list(range(first, first + size))
            first += stride


@lru_cache(maxsize=4)
def epoch_order(clips: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of range(clips)."""
    return np.random.default_rng([seed, epoch]).permutation(clips)


def _collate(items: list[tuple[int, Clip]]) -> Batch:
    return Batch(collate([clip for _, clip in items]), [position for position, _ in items])
