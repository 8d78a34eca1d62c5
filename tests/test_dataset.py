"""Clips cut from datasets: right frames with right poses, reproducible windows, honest errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.buckets import Bucket
from lisa_video.dataset import Clip, ClipDataset, collate
from lisa_video.errors import UserError
from lisa_video.manifest import MANIFEST, DatasetWriter
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.video import read_video, write_video
from lisa_video.views import ViewKey, draw_start
from tests.dots import DOT, FPS, HEIGHT, LENGTH, WIDTH, dot_centres, dot_clip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six training clips and one for validation."""
    with DatasetWriter(tmp_path / "set") as writer:
        for index in range(7):
            split = "train" if index < 6 else "validation"
            writer.add(f"clip-{index}", *dot_clip(), caption=f"dot {index}", split=split)
    return tmp_path / "set"


def windows(dataset: ClipDataset) -> list[int]:
    return [dataset[index].start for index in range(len(dataset))]


# Windows.


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_window_has_the_frames_and_poses_of_its_place(
    root: Path, cache: bool, stride: int
) -> None:
    dataset = ClipDataset(
        root, "train", frames=5, stride=stride, size=(WIDTH, HEIGHT), cache_in_memory=cache
    )
    _, poses = dot_clip()
    starts = set()
    for epoch in range(4):
        for index in range(len(dataset)):
            clip = dataset.clip(index, epoch)
            places = range(clip.start, clip.start + 5 * stride, stride)
            assert clip.pixels.shape == (5, HEIGHT, WIDTH, 3) and clip.pixels.dtype == np.uint8
            np.testing.assert_array_equal(clip.poses.keypoints, poses.keypoints[list(places)])
            np.testing.assert_allclose(
                dot_centres(clip.pixels), clip.poses.keypoints[:, 0, DOT, :2], atol=0.2
            )
            assert clip.poses.fps == FPS / stride
            assert (clip.id, clip.caption) == (f"clip-{index}", f"dot {index}")
            starts.add(clip.start)
    assert min(starts) == 0 and max(starts) == LENGTH - 4 * stride - 1


def test_the_cache_changes_nothing_and_cannot_be_changed(root: Path) -> None:
    plain = ClipDataset(root, "train", frames=4, size=(20, 20))
    cached = ClipDataset(root, "train", frames=4, size=(20, 20), cache_in_memory=True)
    for _ in range(2):
        for index in range(len(plain)):
            expected, clip = plain[index], cached[index]
            np.testing.assert_array_equal(clip.pixels, expected.pixels)
            np.testing.assert_array_equal(clip.poses.keypoints, expected.poses.keypoints)
            np.testing.assert_array_equal(clip.pose_frames, expected.pose_frames)
            clip.pixels[:] = clip.poses.keypoints[:] = clip.pose_frames[:] = 0


def test_windows_follow_from_seed_epoch_and_id(root: Path) -> None:
    def dataset(seed: int) -> ClipDataset:
        return ClipDataset(root, "train", frames=2, seed=seed)

    first = windows(dataset(seed=5))
    assert windows(dataset(seed=5)) == first
    assert windows(dataset(seed=6)) != first
    other = dataset(seed=5)
    other.set_epoch(1)
    assert windows(other) != first
    other.set_epoch(0)
    assert windows(other) == first
    # The order in the manifest does not matter, nor which other clips there are.
    lines = (root / MANIFEST).read_text().splitlines()
    (root / MANIFEST).write_text("\n".join([lines[0], lines[3], lines[1]]) + "\n")
    assert windows(dataset(seed=5)) == [first[2], first[0]]


def test_windows_start_everywhere_equally_often() -> None:
    starts = [draw_start(ViewKey(0, epoch, "a"), 5) for epoch in range(2000)]
    assert np.bincount(starts, minlength=5).min() > 330
    assert draw_start(ViewKey(0, 0, "a"), 1) == 0


def test_loader_workers_give_the_same_clips(root: Path) -> None:
    dataset = ClipDataset(root, "train", frames=3)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=collate)
    (first, second) = loader
    assert first.ids + second.ids == [f"clip-{index}" for index in range(6)]
    expected = collate([dataset[index] for index in range(4)])
    torch.testing.assert_close(first.pixels, expected.pixels, rtol=0, atol=0)
    torch.testing.assert_close(first.pose_frames, expected.pose_frames, rtol=0, atol=0)


# Batches.


def test_batches_are_scaled_drawn_and_weighted(root: Path) -> None:
    dataset = ClipDataset(root, "train", frames=3, size=(32, 16))
    clips = [dataset[0], dataset[1]]
    batch = collate(clips)
    assert batch.ids == ["clip-0", "clip-1"] and batch.captions == ["dot 0", "dot 1"]
    assert batch.pixels.shape == batch.pose_frames.shape == (2, 3, 3, 16, 32)
    assert batch.pixels.dtype == batch.pose_frames.dtype == torch.float32
    pixels = ((batch.pixels[1, 2] + 1) * 127.5).round().permute(1, 2, 0)
    np.testing.assert_array_equal(pixels, clips[1].pixels[2])
    assert batch.pixels.min() >= -1 and batch.pixels.max() <= 1
    drawn = draw_pose_frames(clips[0].poses.keypoints, (32, 16), (32, 16))
    np.testing.assert_allclose(batch.pose_frames[0], drawn, atol=0.51 / 255)
    # One sure joint of eighteen, in every frame.
    torch.testing.assert_close(batch.frame_weights, torch.full((2, 3), 1 / 18))


# Data that does not fit is refused, never replaced by other clips.


def change(root: Path, id: str, **values: Any) -> None:
    """Change the manifest's line of a clip."""
    lines = [json.loads(line) for line in (root / MANIFEST).read_text().splitlines()]
    for line in lines[1:]:
        line.update(values if line["id"] == id else {})
    (root / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in lines))


def refused(root: Path) -> Iterator[str]:
    """Messages of all the ways to meet clip 2."""
    for cache in (False, True):
        dataset = ClipDataset(root, "train", frames=4, cache_in_memory=cache)
        dataset[1]
        for meet in (dataset.check, lambda dataset=dataset: dataset[2]):
            with pytest.raises(UserError) as error:
                meet()
            yield str(error.value)


def test_sound_data_passes_the_check(root: Path) -> None:
    ClipDataset(root, "train").check()


def test_a_pose_file_of_another_length(root: Path) -> None:
    path = root / "poses" / "clip-2.npz"
    PoseSequence.load(path).frames(range(10)).save(path, overwrite=True)
    for message in refused(root):
        assert "clip-2.mp4: the video has 12 frames, its poses have 10;" in message


@pytest.mark.parametrize(("name", "true", "stated"), [("frames", 12, 11), ("width", 48, 50)])
def test_a_manifest_that_is_wrong(root: Path, name: str, true: int, stated: int) -> None:
    change(root, "clip-2", **{name: stated})
    expected = f"clip-2.mp4: {name} is {true}, the manifest says {stated} for clip 'clip-2'"
    for message in refused(root):
        assert message.endswith(expected)


def test_poses_of_another_size(root: Path) -> None:
    path = root / "poses" / "clip-2.npz"
    PoseSequence.load(path).resized(96, 64).save(path, overwrite=True)
    for message in refused(root):
        assert "clip-2.mp4: the video has 48x32 pixels, its poses are for 96x64;" in message


def test_broken_files(root: Path) -> None:
    video = root / "clips" / "clip-2.mp4"
    content = video.read_bytes()
    video.write_bytes(content[: len(content) - 200])
    for message in refused(root):
        assert message.endswith("clip-2.mp4: truncated, 200 bytes of its pictures are missing")
    video.unlink()
    write_video(video, dot_clip()[0], FPS)
    poses = root / "poses" / "clip-2.npz"
    poses.write_bytes(b"")
    for message in refused(root):
        assert "clip-2.npz: not a pose file" in message


def test_clips_without_anybody(root: Path) -> None:
    nobody = PoseSequence(np.zeros((LENGTH, 1, 18, 3), np.float32), WIDTH, HEIGHT, FPS)
    nobody.save(root / "poses" / "clip-2.npz", overwrite=True)
    for message in refused(root):
        assert message.endswith("clip-2.npz: no person in any of its 12 frames")


def test_clips_shorter_than_a_window_are_named_at_once(root: Path) -> None:
    assert len(ClipDataset(root, "train", frames=6, stride=2)) == 6
    with pytest.raises(
        UserError,
        match=r"'clip-0' has 12 frames, a window of 5 frames with stride 3 needs 13; 6 of 6 clips",
    ):
        ClipDataset(root, "train", frames=5, stride=3)


def test_an_unknown_split(root: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'tset', known: train \(6\), validation \(1\)"):
        ClipDataset(root, "tset")


# Views.

STARTS = [4, 0, 0, 3, 3, 4, 4, 1, 1, 1, 2, 3, 1, 3, 5, 0, 1, 0]  # as first published
FLIPPED_DOT = DOT  # the nose has no other side
EVERYTHING = AugmentationConfig(
    flip=0.5, crop_scale=(0.5, 1.0), crop_shift=0.5, joint_dropout=0.3, frame_dropout=0.2
)


def assert_same_clip(clip: Clip, expected: Clip) -> None:
    np.testing.assert_array_equal(clip.pixels, expected.pixels)
    np.testing.assert_array_equal(clip.poses.keypoints, expected.poses.keypoints)
    np.testing.assert_array_equal(clip.pose_frames, expected.pose_frames)
    for name in ("id", "caption", "start"):
        assert getattr(clip, name) == getattr(expected, name)
    assert clip.poses.fps == expected.poses.fps


def test_without_settings_windows_are_the_centre_of_every_picture(root: Path) -> None:
    """As before there were views, to the bit: published figures depend on it."""
    dataset = ClipDataset(root, "train", frames=4, size=(20, 30), stride=2, seed=3)
    assert [dataset.clip(i, e).start for e in range(3) for i in range(6)] == STARTS
    for index in range(2):
        clip = dataset.clip(index, 1)
        places = range(clip.start, clip.start + 7, 2)
        poses = PoseSequence.load(root / f"poses/clip-{index}.npz").frames(places)
        video = read_video(root / f"clips/clip-{index}.mp4", places).frames
        scaled = np.stack([cv2.resize(f, (45, 30), interpolation=cv2.INTER_AREA) for f in video])
        np.testing.assert_array_equal(clip.pixels, scaled[:, :, 12:32])
        moved = poses.resized(45, 30).keypoints - np.array([12, 0, 0], np.float32)
        moved[poses.keypoints[..., 2] == 0] = 0
        np.testing.assert_array_equal(clip.poses.keypoints, moved)
        drawn = draw_pose_frames(moved, (20, 30), (20, 30))
        np.testing.assert_array_equal(clip.pose_frames, (drawn * 255).round().astype(np.uint8))


@pytest.mark.parametrize("augmentation", [AugmentationConfig(flip=0.5), EVERYTHING])
def test_the_cache_changes_no_view(root: Path, augmentation: AugmentationConfig) -> None:
    def dataset(cache: bool) -> ClipDataset:
        return ClipDataset(
            root,
            "train",
            frames=4,
            size=(20, 20),
            max_stride=3,
            augmentation=augmentation,
            cache_in_memory=cache,
        )

    plain, cached = dataset(False), dataset(True)
    for epoch in (0, 1, 0):
        for index in range(3):
            expected, clip = plain.clip(index, epoch), cached.clip(index, epoch)
            assert_same_clip(clip, expected)
            clip.pixels[:] = clip.poses.keypoints[:] = clip.pose_frames[:] = 0


def test_dots_stay_under_their_keypoints_in_every_view(root: Path) -> None:
    augmentation = AugmentationConfig(
        flip=0.5, crop_scale=(0.8, 1.0), crop_shift=0.3, crop_centre="people"
    )
    dataset = ClipDataset(root, "train", frames=3, size=(40, 40), augmentation=augmentation)
    seen = set()
    for epoch in range(6):
        for index in range(len(dataset)):
            clip, view = dataset.clip(index, epoch), dataset.view(index, epoch)
            joint = FLIPPED_DOT if view.flip else DOT
            places = clip.poses.keypoints[:, 0, joint, :2]
            np.testing.assert_allclose(dot_centres(clip.pixels), places, atol=0.4)
            seen.add((view.flip, view.box))
    assert len({flip for flip, _ in seen}) == 2 and len(seen) > 20


def test_the_condition_is_that_of_the_clip_and_needs_no_video(root: Path) -> None:
    dataset = ClipDataset(root, "train", frames=4, size=(20, 20), augmentation=EVERYTHING)
    clips = [dataset.clip(index, 2) for index in range(3)]
    views = [dataset.view(index, 2) for index in range(3)]
    for index in range(3):
        (root / f"clips/clip-{index}.mp4").write_bytes(b"")
    for index, (clip, view) in enumerate(zip(clips, views, strict=True)):
        condition = dataset.condition(index, view)
        assert_same_clip(Clip(pixels=clip.pixels, **vars(condition)), clip)
        assert dataset.caption(index, view) == clip.caption


def test_a_number_of_views_comes_back(root: Path) -> None:
    dataset = ClipDataset(root, "train", frames=4, views=3, max_stride=2, augmentation=EVERYTHING)
    fresh = ClipDataset(root, "train", frames=4, max_stride=2, augmentation=EVERYTHING)
    for index in range(len(dataset)):
        views = [dataset.view(index, epoch) for epoch in range(7)]
        pictures = [view.picture for view in views]
        assert pictures[3:] == pictures[:4] and len(set(pictures)) == 3
        assert len({view.pose_seed for view in views}) == 7, "what is withheld stays new"
        assert [fresh.view(index, epoch) for epoch in range(3)] == views[:3]
        assert fresh.view(index, 3).picture != pictures[3]
    assert dataset.view(0, 0) == ClipDataset(
        root, "train", frames=4, views=3, max_stride=2, augmentation=EVERYTHING
    ).view(0, 0)


def test_strides_are_drawn_as_far_as_clips_are_long(root: Path) -> None:
    dataset = ClipDataset(root, "train", frames=5, max_stride=9)
    views = [dataset.view(index, epoch) for index in range(6) for epoch in range(10)]
    assert {view.step for view in views} == {1, 2}  # 3 needs 13 of the 12 frames
    assert {dataset.clip(0, epoch).poses.fps for epoch in range(10)} == {FPS, FPS / 2}
    assert all(view.start >= 0 and view.indices[-1] < LENGTH for view in views)


def test_flips_turn_captions_and_spare_what_they_would_falsify(tmp_path: Path) -> None:
    captions = ["he points left", "he looks right at us", "he dances"]
    with DatasetWriter(tmp_path / "set") as writer:
        for index, caption in enumerate(captions):
            writer.add(f"clip-{index}", *dot_clip(), caption=caption, split="train")
    flipped = ClipDataset(
        tmp_path / "set", "train", frames=2, augmentation=AugmentationConfig(flip=1.0)
    )
    assert [flipped[index].caption for index in range(3)] == [
        "he points right",
        "he looks right at us",
        "he dances",
    ]
    assert [flipped.view(index, 0).flip for index in range(3)] == [True, False, True]


def test_frames_are_taken_by_time(root: Path) -> None:
    """Of videos of 10 fps, at 4 and at 8 fps."""
    dataset = ClipDataset(root, "train", frames=4, fps=4.0, size=(WIDTH, HEIGHT))
    _, poses = dot_clip()
    for index in range(3):
        clip = dataset[index]
        places = [clip.start + offset for offset in (0, 3, 5, 8)]
        np.testing.assert_array_equal(clip.poses.keypoints, poses.keypoints[places])
        assert clip.poses.fps == 4
    assert ClipDataset(root, "train", frames=9, fps=8.0)[0].poses.fps == 8
    with pytest.raises(UserError, match=r"'clip-0' has 10 fps, .* at 16 fps would repeat some"):
        ClipDataset(root, "train", frames=4, fps=16.0)


def test_clips_go_to_buckets(tmp_path: Path) -> None:
    shapes = [(64, 32), (32, 64), (60, 30), (40, 40)]
    with DatasetWriter(tmp_path / "set") as writer:
        for index, (width, height) in enumerate(shapes):
            frames = 12 if index < 3 else 6
            clip = dot_clip(width, height, frames)
            writer.add(f"clip-{index}", *clip, caption="a dot", split="train")
    buckets = [Bucket(9, (32, 16)), Bucket(9, (16, 32)), Bucket(5, (24, 24))]
    dataset = ClipDataset(tmp_path / "set", "train", buckets=buckets)
    assert dataset.bucket_of.tolist() == [0, 1, 0, 2]
    for index, bucket in enumerate(dataset.bucket_of):
        frames, (width, height) = buckets[bucket].frames, buckets[bucket].size
        assert dataset[index].pixels.shape == (frames, height, width, 3)
    with pytest.raises(UserError, match=r"'clip-3' has 6 frames, .* 9 .* needs 9; 1 of 4 clips"):
        ClipDataset(tmp_path / "set", "train", buckets=buckets[:2])
