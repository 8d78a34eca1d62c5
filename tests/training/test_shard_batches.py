"""The order of packed clips, over ranks, epochs and interruptions. N clips."""

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.training.batches import Sample
from lisa_video.training.shard_batches import ShardBatchStream
from tests.training.runs import tiny_config

SHARDS = np.repeat(np.arange(9, dtype=np.int32), [4, 4, 4, 4, 4, 4, 4, 4, 1])
CLIPS = len(SHARDS)


def stream(process: int = 0, processes: int = 1, **changes: Any) -> ShardBatchStream:
    """A stream needs to know of its clips only how many there are."""
    config = tiny_config(Path(), Path(), **changes)
    clips: Any = SimpleNamespace(bucket_of=np.zeros(CLIPS, np.int16), buckets=(None,))
    return ShardBatchStream(clips, config, SHARDS, process=process, processes=processes)


def drawn(stream: ShardBatchStream, batches: int, steps_done: int = 0) -> list[Sample]:
    some = islice(stream.samples(steps_done), batches)
    return [sample for batch in some for sample in batch]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_epoch_has_each_clip_once_over_all_ranks(processes: int) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    for process in range(processes):
        samples = drawn(stream(process, processes), 80)
        assert [sample.epoch for sample in samples] == sorted(sample.epoch for sample in samples)
        seen.update((sample.epoch, sample.clip) for sample in samples)
    assert all(seen[epoch, index] == 1 for epoch in range(3) for index in range(CLIPS))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_rank_reads_shards_of_its_own_one_after_the_other(processes: int) -> None:
    shards: list[set[int]] = []
    for process in range(processes):
        epoch = [s for s in drawn(stream(process, processes), 40) if s.epoch == 0]
        row = [int(SHARDS[sample.clip]) for sample in epoch]
        assert len(set(row)) == 1 + sum(one != other for one, other in pairwise(row))
        shards.append(set(row))
    assert sum(map(len, shards)) == len(set.union(*shards)) == 9


def test_orders_change_with_seed_and_epoch_alone() -> None:
    first = drawn(stream(), 60)
    assert drawn(stream(), 60) == first
    assert drawn(stream(seed=1), 60) != first
    epochs = [[s.clip for s in first if s.epoch == epoch] for epoch in (0, 1)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])
    within = [i for i in epochs[0] if SHARDS[i] == 0], [i for i in epochs[1] if SHARDS[i] == 0]
    assert sorted(within[0]) == sorted(within[1])


@pytest.mark.parametrize("steps", [1, 4, 9, 30])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_run_goes_on_from_any_step(steps: int, processes: int) -> None:
    settings = {"optimizer__gradient_accumulation_steps": 2}
    for process in range(processes):
        whole = drawn(stream(process, processes, **settings), 80)
        rest = drawn(stream(process, processes, **settings), 10, steps_done=steps)
        assert rest == whole[steps * 4 : steps * 4 + 20]


def test_positions_are_those_of_every_run() -> None:
    """Noise is drawn by position: ranks and passes of a step take each once."""
    samples = [
        s
        for rank in (0, 1)
        for s in drawn(stream(rank, 2, optimizer__gradient_accumulation_steps=3), 6)
    ]
    assert sorted(sample.position for sample in samples) == list(range(24))


def test_more_ranks_than_shards_are_refused() -> None:
    with pytest.raises(UserError, match="9 shards cannot be shared by 10 processes"):
        stream(0, 10)


def test_buckets_are_refused_for_packed_sets() -> None:
    config = tiny_config(Path(), Path())
    with pytest.raises(UserError, match="packed sets are trained in one shape"):
        replace(config.data, shards="s3://bucket/set", buckets=[(4, 16, 16)])
