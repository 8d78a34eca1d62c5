"""The order in which training sees the clips of a packed set, a function of (seed, step).

Every epoch is a fresh order of the shards, and of the clips in each. Of that order of shards each
process takes every n-th, so that no shard is read by two of them in an epoch, and reads its clips
in an endless row of epochs. Where shards are not equal, one process may begin an epoch some batches
before another.

Which reading process of a loader reads which batch changes nothing: each reads the bytes of its own
clips only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lisa_video.caching.clips import TrainingClips
from lisa_video.errors import UserError
from lisa_video.training.batches import BatchStream, Sample
from lisa_video.training.config import TrainConfig


class ShardBatchStream(BatchStream):
    """What one process of a run reads of a packed set, pass after pass.

    `shards` (N,) is the shard that each clip lies in. Raises UserError where there are fewer shards
    than processes.
    """

    def __init__(
        self,
        clips: TrainingClips,
        config: TrainConfig,
        shards: NDArray[np.int32],
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__(clips, config, process=process, processes=processes)
        names = np.unique(shards)
        self.shards = [np.flatnonzero(shards == name) for name in names]
        """Indices of the clips of each shard."""
        if len(self.shards) < processes:
            raise UserError(
                f"data.shards={config.data.shards}: {len(self.shards)} shards cannot be shared by "
                f"{processes} processes; pack the set with fewer clips_per_shard"
            )

    @property
    def sharing(self) -> str:
        """Here each process has shards of its own."""
        return f"{super().sharing}, shared by {self.processes} processes, in {self.passes} passes"

    def samples(self, steps_done: int) -> Iterator[list[Sample]]:
        """The clips of each batch from after `steps_done` steps on, without end."""
        size, step = self.data.batch_size, steps_done
        row = self._row(steps_done * self.passes * size)
        while True:
            for accumulated in range(self.passes):
                first = step * self.clips_per_step
                first += (accumulated * self.processes + self.process) * size
                yield [
                    Sample(first + place, index, epoch)
                    for place, (index, epoch) in enumerate(islice(row, size))
                ]
            step += 1

    def _row(self, drawn: int) -> Iterator[tuple[int, int]]:
        """Index and epoch of every clip of this process but the first `drawn`, without end."""
        epoch = 0
        while True:
            own = self._shards_of(epoch)
            clips = sum(len(self.shards[shard]) for shard in own)
            if drawn < clips:
                for index in islice(self._clips_of(own, epoch), drawn, None):
                    yield index, epoch
            drawn = max(0, drawn - clips)
            epoch += 1

    def _shards_of(self, epoch: int) -> list[int]:
        """The shards of this process in an epoch, in their order."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
        own: list[int] = order[self.process :: self.processes].tolist()
        return own

    def _clips_of(self, shards: list[int], epoch: int) -> Iterator[int]:
        for shard in shards:
            rng = np.random.default_rng([self.seed, epoch, shard])
            yield from rng.permutation(self.shards[shard]).tolist()
