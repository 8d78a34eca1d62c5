"""The dataset format: what is written can be read, and every bad line is named."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from lisa_video.errors import UserError
from lisa_video.manifest import (
    MANIFEST,
    DatasetWriter,
    ManifestEntry,
    load_manifest,
)
from lisa_video.poses import PoseSequence
from lisa_video.video import count_frames

SCHEMA = Path(__file__).parents[1] / "data" / "manifest.schema.json"
BAD_VALUES: dict[str, Any] = {
    "id": "a b",
    "video": "clips/../../a.mp4",
    "poses": "/a.npz",
    "caption": None,
    "fps": 0,
    "frames": 1.5,
    "width": 0,
    "height": "16",
    "split": "",
    "people": -1,
    "sha256": "00",
    "author": "me",
}


def poses_for(frames: int, width: int, height: int) -> PoseSequence:
    keypoints = np.ones((frames, 1, 18, 3), np.float32)
    keypoints[..., 0] = np.arange(frames)[:, None, None]
    return PoseSequence(keypoints, width, height, fps=12.5)


def add_clip(writer: DatasetWriter, id: str, split: str = "train", frames: int = 4) -> None:
    pixels = np.full((frames, 16, 24, 3), 90, np.uint8)
    writer.add(id, pixels, poses_for(frames, 24, 16), caption=f"a clip {id}", split=split)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of three clips."""
    folder = tmp_path / "set"
    with DatasetWriter(folder) as writer:
        add_clip(writer, "a")
        add_clip(writer, "b", frames=5)
        add_clip(writer, "c", split="validation")
    return folder


def test_what_is_written_can_be_read(root: Path) -> None:
    entries = load_manifest(root)
    assert [entry.id for entry in entries] == ["a", "b", "c"]
    digest = hashlib.sha256((root / "clips" / "b.mp4").read_bytes()).hexdigest()
    assert entries[1] == ManifestEntry(
        "b", "clips/b.mp4", "poses/b.npz", "a clip b", 12.5, 5, 24, 16, "train", 1, digest
    )
    for entry in entries:
        assert count_frames(root / entry.video) == entry.frames
        assert len(PoseSequence.load(root / entry.poses)) == entry.frames


def test_the_schema_describes_what_is_written(root: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    clip = schema["$defs"]["clip"]
    names = [field.name for field in fields(ManifestEntry)]
    assert list(clip["properties"]) == clip["required"] == names
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    lines = [json.loads(line) for line in (root / MANIFEST).read_text().splitlines()]
    for line in lines:
        validator.validate(line)
    for name, value in BAD_VALUES.items():
        assert not validator.is_valid(lines[1] | {name: value}), name
    assert not validator.is_valid({"format": "lisa_video", "version": 1})


def test_captions_keep_their_letters_and_quotes(tmp_path: Path) -> None:
    caption = 'une femme "agile" à Zürich,\n踊る\u2028'
    with DatasetWriter(tmp_path) as writer:
        frames = np.zeros((1, 2, 2, 3), np.uint8)
        writer.add("x", frames, poses_for(1, 2, 2), caption=caption, split="train")
    assert load_manifest(tmp_path)[0].caption == caption


def test_odd_sizes_become_even_and_keypoints_stay(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path) as writer:
        entry = writer.add(
            "odd",
            np.zeros((3, 15, 23, 3), np.uint8),
            poses_for(3, 23, 15),
            caption="",
            split="train",
        )
    assert (entry.width, entry.height) == (24, 16)
    stored = PoseSequence.load(tmp_path / entry.poses)
    assert (stored.width, stored.height) == (24, 16)
    np.testing.assert_array_equal(stored.keypoints, poses_for(3, 23, 15).keypoints)


# What the writer refuses.


def test_a_folder_with_a_dataset_is_not_written_to(root: Path) -> None:
    before = (root / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="set: holds a dataset already"):
        DatasetWriter(root)
    (root / MANIFEST).unlink()
    with pytest.raises(UserError, match="clips: left by another run"):
        DatasetWriter(root)
    assert before


def test_an_interrupted_writer_leaves_no_dataset(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(tmp_path) as writer:
            add_clip(writer, "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(UserError, match=r"not a dataset, it has no manifest\.jsonl"):
        load_manifest(tmp_path)


def test_clips_that_do_not_fit(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path)
    frames, poses = np.zeros((4, 16, 24, 3), np.uint8), poses_for(4, 24, 16)
    words = {"caption": "", "split": "train"}
    with pytest.raises(UserError, match="x: the video has 4 frames, its poses have 3"):
        writer.add("x", frames, poses.frames([0, 1, 2]), **words)
    with pytest.raises(UserError, match="x: the video has 24x16 pixels, its poses are for 48x32"):
        writer.add("x", frames, poses.resized(48, 32), **words)
    for id in ("", "../x", "a/b", ".hidden", "a b", "a\n"):
        with pytest.raises(UserError, match=r"clip id '.*': use letters"):
            writer.add(id, frames, poses, **words)
    with pytest.raises(UserError, match="its split is '', use letters"):
        writer.add("x", frames, poses, caption="", split="")
    add_clip(writer, "x")
    with pytest.raises(UserError, match="'x' is given twice"):
        add_clip(writer, "x")
    with (
        pytest.raises(UserError, match="no clip was added"),
        DatasetWriter(tmp_path / "empty"),
    ):
        pass


# What the reader refuses, with the line.


def rewrite(root: Path, line: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace a line of the manifest, counted from 1, by what `change` makes of it."""
    lines = (root / MANIFEST).read_text().splitlines()
    changed = change(json.loads(lines[line - 1]))
    lines[line - 1] = changed if isinstance(changed, str) else json.dumps(changed)
    (root / MANIFEST).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("line", "change", "problem"),
    [
        (1, lambda _: {"format": "lisa_video", "version": 1}, "format version 1; .* version 2"),
        (1, lambda _: {"format": "other", "version": 2}, "not a dataset's header, which is"),
        (1, lambda _: "[]", "not a JSON object"),
        (3, lambda _: "{'id'}", "not valid JSON"),
        (3, lambda _: "", "not valid JSON"),
        (3, lambda _: "[" * 100_000, "not valid JSON"),
        (3, lambda clip: {**clip, "fps": float("nan")}, "not valid JSON"),
        (3, lambda clip: {k: v for k, v in clip.items() if k != "poses"}, "'poses' is missing"),
        (3, lambda clip: {**clip, "captoin": ""}, "unknown key 'captoin', known: id, video,"),
        (3, lambda clip: {**clip, "id": "a"}, "id 'a' is already that of line 2"),
        (3, lambda clip: {**clip, "id": ""}, "'id' is \"\", it must be a name of letters"),
        (3, lambda clip: {**clip, "id": "a\nb"}, r"'id' is \"a\\nb\", it must be a name"),
        (3, lambda clip: {**clip, "split": "a b"}, "'split' is \"a b\", it must be a name"),
        (3, lambda clip: {**clip, "caption": None}, "'caption' is null, it must be text"),
        (3, lambda clip: {**clip, "frames": 0}, "'frames' is 0, it must be a whole number from 1"),
        (3, lambda clip: {**clip, "frames": 5.0}, r"'frames' is 5\.0"),
        (3, lambda clip: {**clip, "width": True}, "'width' is true"),
        (
            3,
            lambda clip: {**clip, "people": -1},
            "'people' is -1, it must be a whole number from 0",
        ),
        (3, lambda clip: {**clip, "sha256": "AB" * 32}, "'sha256' is .*, it must be 64 digits"),
        (3, lambda clip: {**clip, "fps": 0}, "'fps' is 0, it must be a number above 0"),
        (3, lambda clip: {**clip, "fps": "25"}, "'fps' is \"25\""),
        (3, lambda clip: {**clip, "fps": 10**400}, r"'fps' is \[\.\.\.\], it must"),
        (
            4,
            lambda clip: {**clip, "video": "/etc/passwd"},
            "'video' is '/etc/passwd', it must be relative",
        ),
        (4, lambda clip: {**clip, "video": "C:/x.mp4"}, "must be relative"),
        (4, lambda clip: {**clip, "video": "clips\\c.mp4"}, "with forward slashes"),
        (4, lambda clip: {**clip, "poses": "clips/../../c"}, r"must not contain '\.\.'"),
        (4, lambda clip: {**clip, "poses": "a\0b"}, "cannot be a path"),
        (
            4,
            lambda clip: {**clip, "poses": "x" * 5000},
            "which cannot be opened: File name too long",
        ),
        (
            4,
            lambda clip: {**clip, "video": "clips/d.mp4"},
            "'video' is 'clips/d.mp4', which does not exist",
        ),
        (4, lambda clip: {**clip, "video": "clips"}, "'video' is 'clips', which is not a file"),
    ],
)
def test_bad_lines_are_named(
    root: Path, line: int, change: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    rewrite(root, line, change)
    with pytest.raises(UserError, match=rf"manifest\.jsonl: line {line}: .*{problem}") as error:
        load_manifest(root)
    assert "\n" not in str(error.value)


def test_links_may_not_lead_out_of_the_folder(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    (root / "clips" / "a.mp4").rename(outside)
    (root / "clips" / "a.mp4").symlink_to(outside)
    with pytest.raises(
        UserError, match=r"line 2: 'video' is .*, a link out of the dataset's folder"
    ):
        load_manifest(root)
    # The dataset itself may be reached by a link, and have links within.
    (root / "clips" / "a.mp4").unlink()
    outside.rename(root / "other.mp4")
    (root / "clips" / "a.mp4").symlink_to(root / "other.mp4")
    (tmp_path / "link").symlink_to(root)
    assert len(load_manifest(tmp_path / "link")) == 3
    (root / "clips" / "b.mp4").unlink()
    (root / "clips" / "b.mp4").symlink_to("b.mp4")
    with pytest.raises(UserError, match=r"line 3: 'video' is 'clips/b\.mp4'"):
        load_manifest(root)


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such dataset folder"):
        load_manifest(tmp_path / "none")
    with pytest.raises(UserError, match="not a dataset, it has no"):
        load_manifest(tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 1: not UTF-8 text"):
        load_manifest(tmp_path)
    manifest.write_bytes(b"")
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        load_manifest(tmp_path)
    manifest.write_text('{"format": "lisa_video", "version": 2}\n')
    with pytest.raises(UserError, match="lists no clip"):
        load_manifest(tmp_path)
