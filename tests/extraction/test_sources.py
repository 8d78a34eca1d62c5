"""Videos of a folder with all that file names and links may bring, and their ids."""

import os
import re
from pathlib import Path

import pytest

from lisa_video.extraction.sources import find_sources, source_id

NAMES = (
    "plain.mp4",
    "with space.MP4",
    'it\'s "quoted".mov',
    "-rf.mp4",
    "ünïcödé 日本.mkv",
    "new\nline.mp4",
    "deep/er/plain.mp4",
    "deep-er-plain.mp4",
    "deep/er-plain.mp4",
    "日本.mp4",
    "a.b.c.mp4",
)


def make(folder: Path) -> None:
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")


def test_all_videos_in_all_folders_are_found_in_order(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.mp4").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.mp4").touch()
    sources, skipped = find_sources(tmp_path)
    assert [source.relative for source in sources] == sorted(NAMES, key=os.fsencode)
    assert not skipped
    for source in sources:
        assert source.path.read_bytes() == b"video" and source.size == 5


def test_ids_are_unique_valid_and_do_not_depend_on_the_others(tmp_path: Path) -> None:
    make(tmp_path)
    ids = {source.relative: source.id for source in find_sources(tmp_path)[0]}
    assert len(set(ids.values())) == len(NAMES)
    for name, identity in ids.items():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", identity), identity
        assert source_id(name) == identity
    assert ids["with space.MP4"].startswith("with-space-")
    assert len(source_id("x" * 300 + ".mp4")) < 80
    assert source_id("\udcff.mp4") != source_id("\udcfe.mp4")


def test_links_are_not_followed_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "real.mp4").touch()
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "deep" / "self").symlink_to("self")
    (folder / "link.mp4").symlink_to(folder / "deep" / "real.mp4")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    sources, skipped = find_sources(folder)
    assert [source.relative for source in sources] == ["deep/real.mp4"]
    reasons = {part.source: part.reason for part in skipped}
    assert reasons == {
        "deep/loop": "a link to a folder, which is not followed",
        "link.mp4": "a link, which is not followed",
        "gone.mp4": "a link, which is not followed",
        "pipe.mp4": "is no ordinary file",
    }


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    _, skipped = find_sources(tmp_path)
    assert [(part.source, part.reason) for part in skipped] == [
        ("closed", "cannot be read: Permission denied")
    ]
