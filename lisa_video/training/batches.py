"""The order in which training sees clips, a function of (seed, step).

A step takes `clips_per_step` clips of one bucket, whichever way they are spread over accumulated
passes and processes, so that every process has equal shapes at every step. Which bucket has its
turn follows from the step (`TurnOrder`); each bucket has turns in proportion to its clips.

The clips of a bucket stand in an endless row of epochs, each a fresh permutation. Turn k of a
bucket takes places k * clips_per_step and on of its row: batches run over the end of an epoch, no
clip is left out of one, and none is seen twice in one. So an epoch of a bucket need not end with a
step, nor with the epochs of other buckets, but all of them go through their clips at one pace.

A clip's position is the number of clips drawn before it. A run goes on from a step without further
state, and with another number of processes, as long as a step has as many clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from lisa_video.buckets import TurnOrder
from lisa_video.caching.clips import EncodedBatch, EncodedClip, TrainingClips, stack_clips
from lisa_video.dataset import Clip, ClipBatch
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig
from lisa_video.training.draws import Purpose, stream_seed
from lisa_video.training.generators import seeded_generators
from lisa_video.training.interruption import leave_terminal


@dataclass(frozen=True)
class Batch:
    """Clips of one forward pass."""

    clips: ClipBatch | EncodedBatch
    positions: list[int]
    """Position of each clip."""


class Sample(NamedTuple):
    """One clip to read."""

    position: int
    clip: int
    """Its index in the dataset."""
    epoch: int
    """Of its bucket."""


class _ClipsOfSamples(Dataset[tuple[int, Clip | EncodedClip]]):
    """What reading processes know: the clips, not their order."""

    def __init__(self, clips: TrainingClips, seed: int) -> None:
        self.clips, self.seed = clips, seed

    def __getitem__(self, sample: Sample) -> tuple[int, Clip | EncodedClip]:
        with seeded_generators(stream_seed(self.seed, Purpose.READING, sample.position)):
            return sample.position, self.clips.clip(sample.clip, sample.epoch)


class BatchStream:
    """What one process of a run reads, pass after pass."""

    def __init__(
        self, clips: TrainingClips, config: TrainConfig, *, process: int = 0, processes: int = 1
    ) -> None:
        self.clips, self.seed = clips, config.seed
        self.data, self.passes = config.data, config.optimizer.gradient_accumulation_steps
        self.process, self.processes = process, processes
        self.members = [
            np.flatnonzero(clips.bucket_of == bucket) for bucket in range(len(clips.buckets))
        ]
        """Indices of the clips of each bucket."""
        self.turns = TurnOrder([len(each) for each in self.members])
        # A step reaches into two epochs of a bucket at most, unless it is larger than these.
        self._order = lru_cache(maxsize=2 * len(self.members))(epoch_order)

    @property
    def clips_per_step(self) -> int:
        return self.data.batch_size * self.passes * self.processes

    @property
    def sharing(self) -> str:
        """What decides which clips a step has: however these are spread over passes and processes."""
        return f"{self.clips_per_step} clips a step"

    def require_sharing(self, sharing: str) -> None:
        """UserError unless a run that saved this `sharing` goes on here with the clips it would have
        had; an empty one, of older checkpoints, passes."""
        if sharing not in ("", self.sharing):
            raise UserError(
                f"resume: the run had {sharing}, and now it would have {self.sharing}; choose "
                "data.batch_size, optimizer.gradient_accumulation_steps and the number of processes "
                "so that these are the same"
            )

    def bucket_lines(self) -> list[str]:
        """How many clips each bucket has, a line each."""
        return [
            f"bucket of {bucket}: {len(members)} clips"
            for bucket, members in zip(self.clips.buckets, self.members, strict=True)
        ]

    def batches(self, steps_done: int) -> Iterator[Batch]:
        """Batches from after `steps_done` steps on, without end."""
        loader = DataLoader(
            _ClipsOfSamples(self.clips, self.seed),
            batch_sampler=self.samples(steps_done),  # type: ignore[arg-type]
            num_workers=self.data.workers,
            collate_fn=_collate,
            worker_init_fn=leave_terminal,
        )
        return iter(loader)

    def samples(self, steps_done: int) -> Iterator[list[Sample]]:
        """The clips of each batch from after `steps_done` steps on, without end."""
        step = steps_done
        while True:
            for accumulated in range(self.passes):
                first = (accumulated * self.processes + self.process) * self.data.batch_size
                yield self._samples(step, range(first, first + self.data.batch_size))
            step += 1

    def _samples(self, step: int, places: range) -> list[Sample]:
        """Clips of one step, by their places in it."""
        turn = self.turns.turn(step)
        members = self.members[turn.bucket]
        samples = []
        for place in places:
            epoch, at = divmod(turn.number * self.clips_per_step + place, len(members))
            index = members[self._order(len(members), self.seed, epoch)[at]]
            samples.append(Sample(step * self.clips_per_step + place, int(index), epoch))
        return samples


def epoch_order(clips: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation of range(clips)."""
    return np.random.default_rng([seed, epoch]).permutation(clips)


def _collate(items: list[tuple[int, Clip | EncodedClip]]) -> Batch:
    return Batch(stack_clips([clip for _, clip in items]), [position for position, _ in items])
