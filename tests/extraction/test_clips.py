"""One video of a folder: what becomes of its frames, and what is said of those left out."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.extraction.clips import clip_files, extract_source, split_of
from lisa_video.extraction.records import Skipped, Source, SourceRecord
from lisa_video.extraction.sources import find_sources
from lisa_video.extraction_config import ClipsConfig, ExtractPosesConfig, SmoothingConfig
from lisa_video.manifest import CLIP_FOLDER, POSE_FOLDER
from lisa_video.poses import PoseSequence
from lisa_video.video import read_video, write_video
from tests.broken_videos import encode
from tests.extraction.figures import FPS, figure_frames, figures_config, write_figures


@pytest.fixture
def config(tmp_path: Path) -> ExtractPosesConfig:
    for name in (CLIP_FOLDER, POSE_FOLDER):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    return figures_config(tmp_path / "videos", tmp_path / "out")


def the_source(config: ExtractPosesConfig) -> Source:
    ((source,), _) = find_sources(config.source)
    return source


def run(config: ExtractPosesConfig) -> SourceRecord:
    return extract_source(the_source(config), config=config)


def files(config: ExtractPosesConfig) -> list[str]:
    return sorted(path.name for path in config.out.rglob("*") if path.is_file())


def test_a_video_without_cuts_is_copied_as_it_is(config: ExtractPosesConfig) -> None:
    video = write_figures(config.source / "-a 'b'.mp4", seed=1)
    (config.source / "-a 'b'.txt").write_text("a figure")
    (entry,) = run(config).clips
    copy = config.out / entry.video
    assert copy.read_bytes() == video.read_bytes()
    assert not os.path.samefile(copy, video)
    assert (entry.frames, entry.width, entry.height, entry.fps) == (12, 64, 64, FPS)
    assert (entry.caption, entry.people) == ("a figure", 1)
    poses = PoseSequence.load(config.out / entry.poses, require_people=True)
    assert poses.keypoints.shape == (12, 1, 18, 3) and poses.detector == "figures"


def test_cuts_and_length_split_a_video_frame_by_frame(config: ExtractPosesConfig) -> None:
    """Scenes of 5, 9 and 20 frames: too short, kept, split in two; nothing is shifted."""
    scenes = [figure_frames(seed, count) for seed, count in ((1, 5), (12, 9), (3, 20))]
    frames = np.concatenate(scenes)
    write_video(config.source / "film.mp4", frames, fps=FPS, crf=1)
    config = replace(config, clips=ClipsConfig(min_frames=6, max_frames=12, crf=1))
    record = run(config)
    assert record.skipped == (Skipped("film.mp4", "5 frames, under clips.min_frames=6", 0, 5),)
    starts = {"0001": 5, "0002": 14, "0003": 24}
    assert {entry.id[-4:] for entry in record.clips} == set(starts)
    for entry in record.clips:
        start = starts[entry.id[-4:]]
        clip = read_video(config.out / entry.video)
        asked = frames[start : start + entry.frames].astype(int)
        assert len(clip.frames) == entry.frames
        assert np.abs(clip.frames.astype(int) - asked).mean() < 4
        assert clip.fps == pytest.approx(FPS)


def test_an_odd_size_becomes_even_and_poses_know(config: ExtractPosesConfig) -> None:
    frames = np.pad(figure_frames(2), ((0, 0), (0, 3), (0, 1), (0, 0)), mode="edge")
    encode_odd(config.source / "odd.mkv", frames)
    (entry,) = run(config).clips
    assert (entry.width, entry.height) == (66, 68)
    poses = PoseSequence.load(config.out / entry.poses)
    assert (poses.width, poses.height) == (66, 68)
    assert read_video(config.out / entry.video).frames.shape == (12, 68, 66, 3)


def encode_odd(path: Path, frames: np.ndarray) -> None:
    encode(path, frames, "ffv1", pix_fmt="bgr0")


def test_reasons_of_videos_that_are_left_out(config: ExtractPosesConfig) -> None:
    def reason(changed: ExtractPosesConfig = config) -> str:
        record = run(changed)
        assert not record.clips and files(config) == []
        (part,) = record.skipped
        return part.reason

    video = write_figures(config.source / "a.mp4", seed=1)
    small = replace(config, clips=replace(config.clips, min_side=65))
    assert reason(small) == "64x64 pixels, its shorter side is under clips.min_side=65"
    strict = replace(config, people=replace(config.people, min_confidence=1.0))
    assert "under people.min_confidence=1.0" in reason(strict)
    (config.source / "a.json").write_text("{}")
    assert reason() == 'a.json: has no text under the key "caption"'
    (config.source / "a.json").unlink()
    video.write_bytes(video.read_bytes()[:-200])
    assert "truncated" in reason()
    video.write_text("text")
    assert reason() == "not a video, or broken from its start"


def test_damage_at_the_end_takes_back_the_clips_before_it(config: ExtractPosesConfig) -> None:
    video = config.source / "a.mp4"
    write_video(video, figure_frames(1, 48), fps=FPS)
    content = bytearray(video.read_bytes())
    content[-400:] = bytes(400)
    video.write_bytes(content)
    config = replace(
        config,
        shots=replace(config.shots, detect=False),
        clips=replace(config.clips, max_frames=12),
    )
    record = run(config)
    assert not record.clips and files(config) == []
    assert "frame" in record.skipped[0].reason


def test_the_result_is_the_same_every_time(config: ExtractPosesConfig) -> None:
    write_video(config.source / "a.mp4", figure_frames(1, 20), fps=FPS)
    config = replace(config, clips=replace(config.clips, max_frames=10))
    first = run(config)
    poses = [(config.out / entry.poses).read_bytes() for entry in first.clips]
    assert len(poses) == 2
    assert run(config) == first
    assert [(config.out / entry.poses).read_bytes() for entry in first.clips] == poses


def test_smoothing_reaches_the_pose_file(config: ExtractPosesConfig) -> None:
    write_figures(config.source / "a.mp4", seed=1)
    (entry,) = run(config).clips
    smoothed = PoseSequence.load(config.out / entry.poses).keypoints
    run(replace(config, smoothing=SmoothingConfig(min_cutoff=0, max_gap=0)))
    raw = PoseSequence.load(config.out / entry.poses).keypoints
    assert 0 < np.abs(smoothed - raw)[..., :2].max() < 20


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a disk with so much left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("max_frames", [8, 40], ids=["encoded", "copied"])
@pytest.mark.parametrize("size", [400, 2000])
def test_a_full_disk_stops_the_run_and_leaves_nothing_broken(
    config: ExtractPosesConfig, max_frames: int, size: int
) -> None:
    write_figures(config.source / "a.mp4", seed=1)
    config = replace(config, clips=replace(config.clips, max_frames=max_frames))
    with largest_file(size), pytest.raises(UserError, match="cannot write this file"):
        run(config)
    assert not [name for name in files(config) if name.endswith(".tmp")]
    for entry in run(config).clips:
        video, poses = clip_files(config.out, entry.id)
        assert len(read_video(video).frames) == len(PoseSequence.load(poses)) == entry.frames


def test_splits_follow_from_the_path_and_have_the_share() -> None:
    names = [f"video {number}.mp4" for number in range(4000)]
    splits = [split_of(name, 0.25) for name in names]
    assert splits == [split_of(name, 0.25) for name in names]
    assert splits.count("validation") / len(names) == pytest.approx(0.25, abs=0.03)
    assert {split_of(name, 0) for name in names} == {"train"}
    assert {split_of(name, 1) for name in names} == {"validation"}
    # A greater share only adds.
    more = [split_of(name, 0.5) for name in names]
    assert all(b == "validation" for a, b in zip(splits, more, strict=True) if a == "validation")
