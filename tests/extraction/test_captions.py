"""Captions from files beside a video, or from a template."""

from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.extraction.captions import find_caption
from lisa_video.extraction_config import check_template


def caption(folder: Path, template: str = "") -> str:
    return find_caption(folder / "a b" / "clip.mp4", "a b/clip.mp4", template)


def test_text_goes_before_json_and_json_before_the_template(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    assert caption(tmp_path, "{stem} in {folder}, {path}, {{}}") == "clip in a b, a b/clip.mp4, {}"
    record = tmp_path / "a b" / "clip.json"
    record.write_text('{"caption": "she “waves”", "likes": 3}', encoding="utf-8")
    assert caption(tmp_path, "{stem}") == "she “waves”"
    (tmp_path / "a b" / "clip.txt").write_bytes("\ufeffhe\n  waves\n".encode())
    assert caption(tmp_path) == "he waves"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("clip.txt", b"\xff\xfe\x00", "not UTF-8 text"),
        ("clip.txt", b"a" * (2**20 + 1), "too long for a caption"),
        ("clip.json", b"{", "not valid JSON"),
        ("clip.json", b"[" * 99999, "not valid JSON"),
        ("clip.json", b'["caption"]', 'no text under the key "caption"'),
        ("clip.json", b'{"caption": 3}', 'no text under the key "caption"'),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*{problem}"):
        caption(tmp_path)


def test_links_and_folders_are_no_captions(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "clip.txt").symlink_to(secret)
    with pytest.raises(UserError, match=r"clip\.txt: is a link"):
        caption(tmp_path)
    (tmp_path / "a b" / "clip.txt").unlink()
    (tmp_path / "a b" / "clip.txt").mkdir()
    with pytest.raises(UserError, match="no ordinary file"):
        caption(tmp_path)


def test_a_name_that_is_no_text_gives_a_caption_that_is(tmp_path: Path) -> None:
    found = find_caption(tmp_path / "x", "\udcff.mp4", "{stem}")
    assert found.encode() == b"?"


@pytest.mark.parametrize(
    "template", ["{name}", "{0}", "{}", "{stem.__class__}", "{stem!r}", "{stem:>9}", "{stem[0]}"]
)
def test_only_known_fields(template: str) -> None:
    with pytest.raises(UserError, match=r"unknown field .*known: \{stem\}, \{folder\}, \{path\}"):
        check_template(template)


def test_a_single_brace_is_explained() -> None:
    with pytest.raises(UserError, match=r"\{\{ for a brace"):
        check_template("a { b")
