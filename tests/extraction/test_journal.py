"""The journal: whole after every kill, and the lock, which ends with its process."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.extraction.journal import Journal
from lisa_video.extraction.records import Skipped, Source, SourceRecord
from lisa_video.manifest import ManifestEntry


def record(name: str, clips: int = 1) -> SourceRecord:
    source = Source(Path("videos") / name, name, f"id-{name[0]}", 100, 200)
    entry = ManifestEntry("a-0", "v", "p", "caption é", 25.0, 9, 8, 8, "train", 1, "0" * 64)
    skipped = Skipped(name, "too “short”", 3, 5)
    return SourceRecord(source, (entry,) * clips, (skipped,))


NAMES = ("b.mp4", "a.mp4", "\udcff.mp4")


def test_it_gives_back_what_it_was_given_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, Path("videos")) as journal:
        for name in NAMES:
            journal.add(record(name))
        journal.add(record("b.mp4", clips=3))
    with Journal(path, Path("videos")) as journal:
        assert list(journal.records()) == [
            record("a.mp4"),
            record("b.mp4", clips=3),
            record("\udcff.mp4"),
        ]
        source = record("a.mp4").source
        assert journal.holds(source)
        assert not journal.holds(replace(source, mtime_ns=201))
        assert not journal.holds(replace(source, relative="c.mp4"))
        assert journal.forget(replace(source, mtime_ns=201)) and not journal.forget(source)
        assert not journal.holds(source) and len(list(journal.records())) == 2


def test_a_journal_torn_anywhere_goes_on_as_if_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with Journal(whole, Path("videos")) as journal:
        for name in NAMES:
            journal.add(record(name))
    content = whole.read_bytes()
    torn = tmp_path / "torn"
    for length in range(0, len(content), 37):
        torn.write_bytes(content[:length])
        with Journal(torn, Path("videos")) as journal:
            done = [name for name in NAMES if journal.holds(record(name).source)]
            assert len(done) == content[:length].count(b"\n")
            for name in NAMES[len(done) :]:
                journal.add(record(name))
            assert [found.source.relative for found in journal.records()] == sorted(
                NAMES, key=os.fsencode
            )
        assert torn.read_bytes() == content


@pytest.mark.parametrize("line", [b"{}\n", b"not JSON\n", b'{"source": 3}\n', b"[]\n", b"\0\n"])
def test_damage_before_the_end_is_refused_with_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal"
    with Journal(path, Path("videos")) as journal:
        journal.add(record("a.mp4"))
    content = path.read_bytes() + line
    path.write_bytes(content)
    with pytest.raises(UserError, match="journal: line 2 is damaged"):
        Journal(path, Path("videos"))
    assert path.read_bytes() == content
