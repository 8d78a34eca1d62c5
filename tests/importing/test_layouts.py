"""Public sets in the folders that they come in: what is found, and what becomes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.extraction_config import ClipsConfig, ShotsConfig
from lisa_video.importing.config import ImportDataConfig
from lisa_video.importing.job import check_import, run_import
from lisa_video.importing.layouts import clip_name, find_clips, read_captions, read_list
from lisa_video.manifest import Manifest, load_manifest
from lisa_video.poses import PoseSequence
from lisa_video.video import read_video
from tests.extraction.figures import DETECTED, figure_frames


def settings(source: Path, layout: Any, **values: Any) -> ImportDataConfig:
    return ImportDataConfig(
        source,
        source.with_name("out"),
        layout=layout,
        detector="figures",
        clips=ClipsConfig(min_frames=4, max_frames=40),
        shots=ShotsConfig(detect=False),
        people=DETECTED,
        workers=1,
        **values,
    )


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(config: ImportDataConfig) -> dict[str, tuple[str | None, str | None]]:
    """Name -> split and caption."""
    return {clip_name(each): (each.split, each.caption) for each in find_clips(config)[0]}


def test_image_folders_become_clips(tmp_path: Path) -> None:
    source = tmp_path / "TikTok dataset"
    pixels = figure_frames(0, 11)
    for name in ("00001", "00002"):
        (source / name / "images").mkdir(parents=True)
        for index, frame in enumerate(pixels, start=1):
            path = source / name / "images" / f"{index}.png"
            assert cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        touch(source / name, "masks/1.png", "densepose/1.png")
    (source / "00002" / "images" / "7.png").write_bytes(b"no image")
    touch(source, "00003/masks/1.png", "00004/images/notes.txt", "TikTok_list.txt")
    (source / "00005").symlink_to(source / "00001")
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"00001": "a woman\ndances"}))
    config = settings(source, "tiktok", captions=captions, image_fps=8.0)
    check_import(config)
    run_import(config)
    (entry,) = load_manifest(config.out)
    assert (entry.frames, entry.fps, entry.caption, entry.split) == (
        11,
        8.0,
        "a woman dances",
        "train",
    )
    stored = read_video(config.out / entry.video).frames
    # In the order of the numbers: 2.png before 10.png.
    assert np.abs(stored.astype(int) - pixels).mean() < 3
    poses = PoseSequence.load(config.out / entry.poses, require_people=True)
    assert poses.detector.startswith("figures") and len(poses) == 11
    lines = [json.loads(line) for line in (config.out / "skipped.jsonl").read_text().splitlines()]
    reasons = {line["source"]: line["reason"] for line in lines}
    assert reasons["00003"] == "has no folder images"
    assert reasons["00004/images"] == "holds no image"
    assert "a link to a folder" in reasons["00005/images"]
    assert "7.png: cannot be read as an image" in reasons["00002/images"]
    assert len(reasons) == 4


def test_fashion_is_split_by_folders_or_by_lists(tmp_path: Path) -> None:
    source = touch(tmp_path / "UBC", "train/91+a.mp4", "test/A1b.mp4", "more/c.mp4")
    config = settings(source, "ubc_fashion")
    assert found(config) == {"91+a": ("train", ""), "A1b": ("test", ""), "c": (None, "")}
    lists = {name: tmp_path / f"fashion_{name}.txt" for name in ("train", "test")}
    lists["train"].write_text("https://m.media-amazon.com/images/I/A1b.mp4?x=1\n\nnone.mp4\n")
    lists["test"].write_text("91+a\n")
    listed = replace(config, train_list=lists["train"], test_list=lists["test"])
    assert found(listed) == {"A1b": ("train", ""), "91+a": ("test", "")}
    (skipped,) = find_clips(listed)[1]
    assert (skipped.source, skipped.reason) == ("more/c.mp4", "is in neither list")
    lists["test"].write_text("91+a\nA1b\n")
    with pytest.raises(UserError, match="'A1b' is in both lists"):
        find_clips(listed)


def test_camera_paths_do_not_become_captions(tmp_path: Path) -> None:
    source = touch(tmp_path / "HumanVid", "videos/é 1.mp4", "videos/b.mp4", "videos/b.txt")
    (source / "videos" / "b.txt").write_text("0 0.1 0.2 0.3 0 0 0 1\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "é 1.txt").write_text("\ufeffa man  walks\n")
    assert found(settings(source, "humanvid")) == {"é 1": (None, ""), "b": (None, "")}
    config = settings(source, "humanvid", captions=tmp_path / "texts")
    assert found(config) == {"é 1": (None, "a man walks"), "b": (None, "")}


def test_lists_that_change_change_the_splits_and_nothing_else(tmp_path: Path) -> None:
    from lisa_video.video import write_video

    source = tmp_path / "UBC"
    (source / "videos").mkdir(parents=True)
    for index in range(2):
        write_video(source / "videos" / f"v{index}.mp4", figure_frames(index, 9), fps=8)
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("v0.mp4")
    test.write_text("v1.mp4")
    config = settings(source, "ubc_fashion", train_list=train, test_list=test)
    run_import(config)
    first = load_manifest(config.out)
    assert Manifest.open(config.out).splits == {"test": 1, "train": 1}
    train.write_text("v1.mp4")
    test.write_text("v0.mp4")
    before = {path: path.stat().st_mtime_ns for path in (config.out / "clips").iterdir()}
    run_import(config)
    second = load_manifest(config.out)
    assert [entry.split for entry in second] == [entry.split for entry in first][::-1]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    source = touch(tmp_path / "set", "train/a.mp4")
    missing = tmp_path / "none"
    with pytest.raises(UserError, match="none: no such folder"):
        find_clips(settings(missing, "tiktok"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no clip in the layout 'humanvid'"):
        find_clips(settings(tmp_path / "empty", "humanvid"))
    with pytest.raises(UserError, match="set: no video in this folder"):
        check_import(settings(source, "tiktok"))
    with pytest.raises(UserError, match="none: cannot be read: No such file"):
        find_clips(settings(source, "ubc_fashion", train_list=missing, test_list=missing))
    with pytest.raises(UserError, match="give both train_list and test_list"):
        settings(source, "ubc_fashion", train_list=missing)
    with pytest.raises(UserError, match="image_fps=0"):
        settings(source, "tiktok", image_fps=0)
    with pytest.raises(UserError, match="unknown pose detector"):
        check_import(replace(settings(source, "ubc_fashion"), detector="eyes"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "should be a JSON object of captions"),
        ('{"a": 1}', "should be a JSON object of captions"),
        ("{}", "holds no caption"),
    ],
)
def test_captions_that_cannot_be_used(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"captions\.json: {problem}"):
        read_captions(path)


def test_lists_name_videos_in_many_ways(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeffa.mp4\n some/folder/b.mp4 \r\nhttps://x.org/c+d.mp4?e=f.g\n\ne\n")
    assert read_list(path) == {"a", "b", "c+d", "e"}
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_list(path)
