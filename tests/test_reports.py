"""Tables and JSON files that jobs leave behind."""

import json
from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.reports import (
    format_table,
    is_unfinished,
    package_versions,
    replace_file,
    write_json,
)


def test_table_aligns_names_left_and_numbers_right() -> None:
    table = format_table(["", "plain"], [["loss", "1"], ["distance", "0.5"]])
    assert table.splitlines() == ["          plain", "loss          1", "distance    0.5"]


def test_json_is_written_once_and_never_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_json(path, {"pck@0.1": 0.5, "ceiling": None})
    assert json.loads(path.read_text()) == {"pck@0.1": 0.5, "ceiling": None}
    with pytest.raises(UserError, match=r"scores\.json: exists already"):
        write_json(path, {})
    assert json.loads(path.read_text())["pck@0.1"] == 0.5
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_a_missing_folder_and_what_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its folder does not exist"):
        write_json(tmp_path / "absent" / "scores.json", {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_versions_name_python_and_the_packages_asked_for() -> None:
    versions = package_versions("numpy")
    assert list(versions) == ["python", "lisa_video", "numpy"]
    assert all(versions.values())


@pytest.mark.parametrize("name", ["config.yaml", "report.html", "LICENSE"])
def test_what_a_dead_process_leaves_is_known(tmp_path: Path, name: str) -> None:
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        seen.append(is_unfinished(temporary))

    replace_file(tmp_path / name, write)
    assert seen == [True]
    assert not is_unfinished(tmp_path / name)
    for other in (".lock", ".env", ".my.tmp", ".notes.2024.txt"):
        (tmp_path / other).write_text("")
        assert not is_unfinished(tmp_path / other)


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    (tmp_path / "a.txt").write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        replace_file(tmp_path / "a.txt", write)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
