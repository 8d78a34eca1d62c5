"""Folders survive the death of the process at any moment."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lisa_video.training.folders import mend_folders, remove_folder, replace_folder

WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir"}


def dies_at(event: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process that dies at its n-th call for a file; whether it came so far."""
    child = os.fork()
    if not child:
        calls = 0

        def count(name: str, _: object) -> None:
            nonlocal calls
            if name in WATCHED:
                calls += 1
                if calls == event:
                    os._exit(9)

        sys.addaudithook(count)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def content(folder: Path) -> dict[str, str] | None:
    if not folder.exists():
        return None
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    for name in ("inner/one", "two"):
        (folder / name).write_text(text)


@pytest.mark.parametrize("replacing", [True, False])
def test_a_folder_is_the_old_or_the_new_one(tmp_path: Path, replacing: bool) -> None:
    old = {"one": "old", "two": "old"} if replacing else None
    new = {"one": "new", "two": "new"}
    event, seen = 0, set()
    alive = False
    while not alive:
        event += 1
        path = tmp_path / str(event) / "side"
        path.parent.mkdir()
        if replacing:
            replace_folder(path, lambda folder: write(folder, "old"))
        alive = not dies_at(
            event, lambda path=path: replace_folder(path, lambda f: write(f, "new"))
        )
        mend_folders(path.parent, "side")
        assert content(path) in (old, new)
        assert os.listdir(path.parent) in ([], ["side"])
        seen.add(content(path) == new)
    assert event > 8 and seen == {True, False}
    assert content(path) == new


def test_a_removed_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    event, alive, seen = 0, False, set()
    while not alive:
        event += 1
        path = tmp_path / str(event) / "step_1"
        path.parent.mkdir()
        replace_folder(path, lambda folder: write(folder, "old"))
        alive = not dies_at(event, lambda path=path: remove_folder(path))
        mend_folders(path.parent, "step_*")
        assert content(path) in ({"one": "old", "two": "old"}, None)
        assert os.listdir(path.parent) in ([], ["step_1"])
        seen.add(content(path) is None)
    assert seen == {True, False} and content(path) is None


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    replace_folder(tmp_path / "side", lambda folder: write(folder, "old"))

    def fail(folder: Path) -> None:
        write(folder, "new")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        replace_folder(tmp_path / "side", fail)
    assert content(tmp_path / "side") == {"one": "old", "two": "old"}
    assert os.listdir(tmp_path) == ["side"]


def test_mending_leaves_other_names_alone(tmp_path: Path) -> None:
    for name in (".mine.tmp", ".step_1.keep", ".step_1.tmp", "step_2"):
        (tmp_path / name).mkdir()
    mend_folders(tmp_path, "step_*")
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", ".step_1.keep", "step_2"]
