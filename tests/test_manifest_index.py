"""Manifests in columns: the same clips as line by line, at any size, and nothing stale."""

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video import manifest_index
from lisa_video.errors import UserError
from lisa_video.manifest import load_manifest, write_manifest
from lisa_video.manifest_index import MANIFEST, Manifest
from lisa_video.manifest_lines import ManifestEntry


def entry(index: int) -> ManifestEntry:
    return ManifestEntry(
        id=f"clip{index}",
        video=f"clips/{index}.mp4",
        poses=f"poses/{index}.npz",
        caption='ünïcode 日本 \n "quotes"' * (index % 5),
        fps=10.0 + index % 3,
        frames=1 + index,
        width=16 + index % 7,
        height=8 + index % 4,
        split=("train", "validation", "test")[index % 3],
        people=index % 2,
        sha256=f"{index:064x}",
    )


@pytest.fixture
def entries(tmp_path: Path) -> list[ManifestEntry]:
    """Thirty clips, whose files are missing, in the manifest of `tmp_path`."""
    made = [entry(index) for index in range(30)]
    write_manifest(tmp_path, made)
    return made


@pytest.fixture(params=[500, 1000, 1 << 22])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Files read in blocks of one line, of a few, and at once."""
    monkeypatch.setattr(manifest_index, "_BLOCK", request.param)
    return int(request.param)


@pytest.mark.usefixtures("blocks")
def test_columns_and_lines_are_the_entries(tmp_path: Path, entries: list[ManifestEntry]) -> None:
    manifest = Manifest.open(tmp_path, check_files=False)
    assert len(manifest) == 30
    assert list(manifest.metadata()) == entries
    assert list(manifest.metadata([7, 29, 0])) == [entries[7], entries[29], entries[0]]
    for name in ("frames", "width", "height", "people", "fps"):
        column = getattr(manifest.columns, name)
        assert column.tolist() == [getattr(each, name) for each in entries]
    lines = (tmp_path / MANIFEST).read_bytes().split(b"\n")
    for number, offset, each in zip(
        manifest.columns.number, manifest.columns.offset, entries, strict=True
    ):
        assert json.loads(lines[number - 1])["id"] == each.id
        assert (tmp_path / MANIFEST).read_bytes()[offset:].startswith(lines[number - 1])


@pytest.mark.usefixtures("blocks")
def test_a_last_line_without_an_end_counts(tmp_path: Path, entries: list[ManifestEntry]) -> None:
    path = tmp_path / MANIFEST
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert list(Manifest.open(tmp_path, check_files=False).metadata()) == entries


def test_splits_and_choices_keep_the_order(tmp_path: Path, entries: list[ManifestEntry]) -> None:
    manifest = Manifest.open(tmp_path, check_files=False)
    assert manifest.splits == {"test": 10, "train": 10, "validation": 10}
    part = manifest.split("validation")
    assert list(part.metadata()) == entries[1::3]
    assert part.splits == {"validation": 10}
    wide = part.take(np.flatnonzero(part.columns.width >= 20))
    assert list(wide.metadata()) == [each for each in entries[1::3] if each.width >= 20]
    with pytest.raises(UserError, match=r"no split 'tset', known: test \(10\), train \(10\)"):
        manifest.split("tset")
    with pytest.raises(UserError, match=r"no split 'test', known: validation \(10\)"):
        part.split("test")


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 29), (0, 29)])
def test_repeated_ids_are_found_anywhere(tmp_path: Path, first: int, second: int) -> None:
    made = [entry(index) for index in range(30)]
    made[second] = replace(made[second], id=made[first].id)
    write_manifest(tmp_path, made)
    with pytest.raises(
        UserError, match=rf"line {second + 2}: id 'clip{first}' is already that of line {first + 2}"
    ):
        Manifest.open(tmp_path, check_files=False)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("place", [0, 13, 29])
def test_bad_lines_are_found_anywhere(
    tmp_path: Path, entries: list[ManifestEntry], place: int
) -> None:
    lines = [json.dumps(asdict(each)) for each in entries]
    lines[place] = lines[place].replace("poses/", "../poses/")
    header = json.dumps({"format": "lisa_video", "version": 2})
    (tmp_path / MANIFEST).write_text("\n".join([header, *lines]))
    with pytest.raises(UserError, match=rf"line {place + 2}: 'poses' is .*, it must not contain"):
        Manifest.open(tmp_path, check_files=False)


def test_small_sets_are_searched_for_their_files_large_ones_clip_by_clip(
    tmp_path: Path, entries: list[ManifestEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = r"line 2: 'video' is 'clips/0\.mp4', which does not exist"
    with pytest.raises(UserError, match=missing):
        Manifest.open(tmp_path)
    monkeypatch.setattr(manifest_index, "CHECKED_CLIPS", 29)
    manifest = Manifest.open(tmp_path)
    with pytest.raises(UserError, match=missing):
        manifest[0]
    with pytest.raises(UserError, match=missing):
        load_manifest(tmp_path)
    for folder, name in (("clips", "29.mp4"), ("poses", "29.npz")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
    assert manifest[29] == manifest[-1] == entries[29]
    for index in (30, -31):
        with pytest.raises(IndexError):
            manifest[index]


def test_a_manifest_changed_since_is_not_read(tmp_path: Path, entries: list[ManifestEntry]) -> None:
    manifest = Manifest.open(tmp_path, check_files=False)
    copy: Manifest = pickle.loads(pickle.dumps(manifest.split("test")))
    assert list(copy.metadata()) == entries[2::3]
    changes: list[Callable[[], object]] = [
        lambda: write_manifest(tmp_path, entries[:5]),
        lambda: (tmp_path / MANIFEST).unlink(),
    ]
    for change, problem in zip(
        changes, ["changed since it was opened", "cannot be read"], strict=True
    ):
        change()
        for each in (manifest, copy):
            with pytest.raises(UserError, match=rf"manifest\.jsonl: {problem}"):
                list(each.metadata([0]))
