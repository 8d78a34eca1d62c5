"""The order of clips is a function of (seed, position)."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.buckets import Bucket
from lisa_video.dataset import ClipDataset
from lisa_video.manifest import DatasetWriter
from lisa_video.poses import PoseSequence
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


# Several buckets.

BUCKETS = [(5, 16, 16), (3, 16, 8), (3, 8, 16)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips for the first bucket, three for the second, two for the third."""
    root = tmp_path_factory.mktemp("mixed")
    sizes = [(16, 16)] * 6 + [(32, 16)] * 3 + [(16, 32)] * 2
    rng = np.random.default_rng(0)
    with DatasetWriter(root) as writer:
        for index, (width, height) in enumerate(sizes):
            frames = rng.integers(0, 256, (7, height, width, 3)).astype(np.uint8)
            keypoints = rng.uniform(0.2, 1, (7, 1, 18, 3)).astype(np.float32)
            keypoints[..., :2] *= (width, height)
            poses = PoseSequence(keypoints, width, height, fps=8.0)
            writer.add(f"clip_{index}", frames, poses, caption="to the left", split="train")
    return root


def mixed_stream(
    root: Path, process: int = 0, processes: int = 1, **changes: object
) -> BatchStream:
    config = tiny_config(root, Path("run"), data__cache_in_memory=False, **changes)
    dataset = ClipDataset(
        root,
        "train",
        seed=config.seed,
        max_stride=2,
        buckets=[Bucket(frames, (width, height)) for frames, width, height in BUCKETS],
        augmentation=AugmentationConfig(flip=0.5, crop_scale=(0.5, 1.0), joint_dropout=0.2),
    )
    return BatchStream(dataset, config, process=process, processes=processes)


def test_each_batch_has_one_shape_and_each_clip_its_turn(mixed: Path) -> None:
    stream = mixed_stream(mixed)
    for batch in take(stream, 11):
        shapes = {BUCKETS[stream.clips.bucket_of[int(name[5:])]] for name in batch.clips.ids}
        ((frames, width, height),) = shapes
        assert batch.clips.pixels.shape == (2, frames, 3, height, width)
    # 11 clips, 2 to a step: after 22 steps every clip was seen four times, give or take the end of
    # an epoch of its bucket that no step has reached yet.
    samples = [sample for batch in islice(stream.samples(0), 22) for sample in batch]
    assert [sample.position for sample in samples] == list(range(44))
    counts = np.bincount([sample.clip for sample in samples], minlength=11)
    assert counts.sum() == 44 and counts.min() >= 3 and counts.max() <= 5
    # No clip twice in an epoch, none left out before the next.
    for members in stream.members:
        seen = [(each.epoch, each.clip) for each in samples if each.clip in members]
        assert len(set(seen)) == len(seen)
        assert [epoch for epoch, _ in seen] == sorted(epoch for epoch, _ in seen)
        whole = seen[: len(seen) // len(members) * len(members)]
        assert {index for _, index in whole} == set(members.tolist())


def test_every_step_takes_one_bucket_in_all_passes_and_processes(mixed: Path) -> None:
    passes = {"optimizer__gradient_accumulation_steps": 2}
    ranks = [mixed_stream(mixed, process=rank, processes=2, **passes) for rank in range(2)]
    one = mixed_stream(mixed, data__batch_size=8)
    assert one.clips_per_step == ranks[0].clips_per_step == 8
    shared = [islice(rank.samples(0), 40) for rank in ranks]
    for whole in islice(one.samples(0), 20):
        spread = [sample for _ in range(2) for rank in shared for sample in next(rank)]
        assert spread == whole
        assert len({one.clips.bucket_of[sample.clip] for sample in whole}) == 1


def test_two_processes_read_what_one_reads(mixed: Path) -> None:
    one = take(mixed_stream(mixed, data__batch_size=4), 3)
    ranks = [take(mixed_stream(mixed, process=rank, processes=2), 3) for rank in range(2)]
    for step, whole in enumerate(one):
        parts = [rank[step].clips for rank in ranks]
        assert [name for part in parts for name in part.ids] == whole.clips.ids
        assert [caption for part in parts for caption in part.captions] == whole.clips.captions
        for name in ("pixels", "pose_frames", "frame_weights"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(together, getattr(whole.clips, name))


def test_going_on_after_any_step_and_reading_ahead_change_nothing(mixed: Path) -> None:
    whole = take(mixed_stream(mixed), 8)
    assert len({batch.clips.pixels.shape for batch in whole}) == 3
    assert_equal(take(mixed_stream(mixed, data__workers=2), 8), whole)
    samples = list(islice(mixed_stream(mixed).samples(0), 30))
    for step in range(1, 28):
        assert list(islice(mixed_stream(mixed).samples(step), 2)) == samples[step : step + 2]
    assert_equal(take(mixed_stream(mixed), 3, steps_done=5), whole[5:])
