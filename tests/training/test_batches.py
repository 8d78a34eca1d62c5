"""The order of clips is a function of (seed, position)."""

from itertools import islice
from pathlib import Path

import torch

from lisa_video.dataset import ClipDataset
from lisa_video.training.batches import Batch, BatchStream, epoch_order
from tests.training.runs import SIZE, tiny_config


def stream(clips: Path, process: int = 0, processes: int = 1, **changes: object) -> BatchStream:
    config = tiny_config(clips, Path("run"), **changes)
    dataset = ClipDataset(clips, "train", frames=4, size=(SIZE, SIZE), seed=config.seed)
    return BatchStream(dataset, config, process=process, processes=processes)


def take(batches: BatchStream, count: int, steps_done: int = 0) -> list[Batch]:
    return list(islice(batches.batches(steps_done), count))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert [each.positions for each in first] == [each.positions for each in second]
    assert [each.clips.ids for each in first] == [each.clips.ids for each in second]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.clips.pixels, other.clips.pixels)
        assert torch.equal(one.clips.pose_frames, other.clips.pose_frames)


def test_every_epoch_is_another_permutation_and_batches_run_over_its_end(clips: Path) -> None:
    batches = take(stream(clips), 7)
    assert [position for batch in batches for position in batch.positions] == list(range(14))
    ids = [name for batch in batches for name in batch.clips.ids]
    assert len(set(ids[:7])) == len(set(ids[7:])) == 7
    assert ids[:7] != ids[7:]
    assert not (epoch_order(7, 0, 0) == epoch_order(7, 1, 0)).all()


def test_going_on_after_a_step_and_reading_ahead_change_nothing(clips: Path) -> None:
    whole = take(stream(clips), 6)
    assert_equal(take(stream(clips), 4, steps_done=2), whole[2:])
    assert_equal(take(stream(clips, data__workers=2), 6), whole)


def test_passes_and_processes_share_the_clips_of_a_step(clips: Path) -> None:
    def positions(batches: list[Batch]) -> list[int]:
        return [position for batch in batches for position in batch.positions]

    one = take(stream(clips, data__batch_size=4), 3)
    passes = take(stream(clips, optimizer__gradient_accumulation_steps=2), 6)
    assert positions(passes) == positions(one)
    ranks = [take(stream(clips, process=rank, processes=2), 3) for rank in range(2)]
    for step in range(3):
        shared = [position for rank in ranks for position in rank[step].positions]
        assert shared == one[step].positions
    later = take(stream(clips, process=1, processes=2), 1, steps_done=2)
    assert_equal(later, ranks[1][2:])
