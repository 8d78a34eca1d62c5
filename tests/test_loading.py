"""What loading says when it fails, and what it leaves as it was."""

from pathlib import Path

import diffusers
import pytest
import transformers

from lisa_video.errors import UserError
from lisa_video.loading import check_source, first_line, libraries_silent


def test_hub_names_and_folders_pass_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path in ("owner/name", "models", tmp_path, tmp_path / "models"):
        check_source(path)
    for path in ("name", "a/b/c", "/owner/name", tmp_path / "missing"):
        with pytest.raises(UserError, match="no such folder, and no hub name"):
            check_source(path)


def test_silence_ends_also_after_an_error() -> None:
    level = diffusers.logging.get_verbosity()
    silent = libraries_silent()
    with pytest.raises(KeyError), silent:
        raise KeyError(diffusers.logging.get_verbosity())
    assert diffusers.logging.get_verbosity() == level
    assert transformers.logging.is_progress_bar_enabled()


def test_first_line_of_an_error() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
