"""Lines of a manifest: the quick look and the close one agree; files lie inside the dataset."""

import json
import random
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lisa_video.errors import UserError
from lisa_video.manifest_lines import (
    DatasetFiles,
    ManifestEntry,
    numbered_blocks,
    parse_block,
    parse_entry,
)

GOOD = ManifestEntry(
    id="a",
    video="clips/a.mp4",
    poses="poses/a.npz",
    caption="a man",
    fps=25.0,
    frames=3,
    width=16,
    height=8,
    split="train",
    people=1,
    sha256="0" * 64,
)
VALUES: list[Any] = [
    "",
    "a",
    "é",
    "-a",
    "a.b-c_d",
    "a b",
    "a\n",
    "clips/my 'own' \"clip\" (1)/ü日本.mp4",
    "../a",
    "a/../b",
    "a..b",
    "/a",
    "./a",
    ".",
    "a\\b",
    "C:/a",
    "a:b",
    "a\0b",
    "\ud800",
    "0" * 64,
    "A" * 64,
    "0" * 65,
    None,
    True,
    [],
    {},
    -1,
    0,
    1,
    2**31 - 1,
    2**31,
    10**30,
    10**400,
    1.0,
    5.5,
    1e400,
    float("nan"),
    10_000,
    10_001,
]
PATH = Path("manifest.jsonl")


def outcome(parse: Any) -> Any:
    try:
        entry = parse()
    except UserError as error:
        return str(error)
    return {name: getattr(entry, name) for name in asdict(GOOD)}


def check_agreement(line: bytes) -> bool:
    """Whether both ways take the line; that they say the same is asserted."""
    close = outcome(lambda: parse_entry(line, PATH, 7))
    assert outcome(lambda: parse_block(line + b"\n", PATH, 7)[0]) == close, line
    return isinstance(close, dict)


@pytest.mark.parametrize("key", asdict(GOOD))
def test_both_looks_agree_on_every_value(key: str) -> None:
    taken = [
        value
        for value in VALUES
        if check_agreement(json.dumps(asdict(GOOD) | {key: value}).encode())
    ]
    assert taken and len(taken) < len(VALUES)


def test_both_looks_agree_on_broken_lines() -> None:
    line, rng = json.dumps(asdict(GOOD)).encode(), random.Random(0)
    taken = 0
    for _ in range(3000):
        broken = bytearray(line)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(broken))
            letter = rng.choice([*b'{}[]":,\\ 09azAZ-._/\t\r\xff\xc3', rng.randrange(256)])
            if rng.random() < 0.5 and letter != ord("\n"):
                broken[place] = letter
            else:
                del broken[place]
        taken += check_agreement(bytes(broken))
    assert 100 < taken < 2900


def test_the_first_bad_line_of_a_block_is_named() -> None:
    lines = [json.dumps(asdict(GOOD) | {"id": f"clip{index}"}) for index in range(50)]
    lines[30] = lines[30].replace('"frames": 3', '"frames": 0')
    lines[40] = "no JSON"
    block = "".join(f"{line}\n" for line in lines).encode()
    with pytest.raises(UserError, match=r"manifest\.jsonl: line 132: 'frames' is 0"):
        parse_block(block, PATH, 102)
    good = b"".join(f"{line}\n".encode() for line in lines[:30])
    assert [entry.id for entry in parse_block(good, PATH, 2)] == [f"clip{i}" for i in range(30)]


@pytest.mark.parametrize("between", ["", "\n\n"])
def test_a_line_holds_one_object(between: str) -> None:
    line = json.dumps(asdict(GOOD))
    with pytest.raises(UserError, match=r"line [23]: not valid JSON"):
        parse_block(f"{line}{between}{line}\n".encode(), PATH, 2)


def test_blocks_are_whole_lines_with_their_numbers() -> None:
    rng = random.Random(1)
    lines = [bytes([65 + index % 26]) * rng.randrange(1, 20) for index in range(200)]
    text = b"\n".join(lines)
    for size in (20, 33, 64, 10_000):
        for end in (b"", b"\n"):
            found = list(numbered_blocks(BytesIO(text + end), PATH, size))
            assert b"".join(block for _, block in found) == text + b"\n"
            number = 2
            for first, block in found:
                assert first == number
                number += block.count(b"\n")
    with pytest.raises(UserError, match="line 4: longer than 20 bytes"):
        list(numbered_blocks(BytesIO(b"a\nb\n" + b"c" * 100), PATH, 20))


# Files.


def test_files_with_any_name_are_found(tmp_path: Path) -> None:
    names = ["a b.mp4", "ü日本.mp4", 'it\'s "quoted".mp4', "a\nb.mp4", "$(x) & ;.mp4", "-rf"]
    (tmp_path / "my clips").mkdir()
    for name in names:
        (tmp_path / "my clips" / name).write_bytes(b"")
        assert DatasetFiles(tmp_path).problem(f"my clips/{name}") is None
        assert DatasetFiles(tmp_path).problem(f"my clips/x{name}") == "which does not exist"


def test_links_are_followed_within_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").write_bytes(b"")
    (tmp_path / "set-two").mkdir()
    (tmp_path / "set-two" / "file").write_bytes(b"")
    (root / "in").symlink_to("inner")
    (root / "out").symlink_to(tmp_path / "set-two")
    (root / "file_in").symlink_to(root / "inner" / "file")
    (root / "file_out").symlink_to("../set-two/file")
    (root / "loop").symlink_to("loop")
    (root / "dir_loop").symlink_to("dir_loop2")
    (root / "dir_loop2").symlink_to("dir_loop")
    (root / "gone").symlink_to("nothing")
    (tmp_path / "link").symlink_to(root)
    for seen_from in (root, tmp_path / "link"):
        files = DatasetFiles(seen_from)
        for value in ("inner/file", "in/file", "file_in"):
            assert files.problem(value) is None
        for value in ("out/file", "file_out"):
            assert files.problem(value) == "a link out of the dataset's folder"
        for value in ("loop", "dir_loop/file"):
            assert "levels of symbolic links" in str(files.problem(value))
        for value in ("gone", "none/file"):
            assert files.problem(value) == "which does not exist"
        assert files.problem("inner") == "which is not a file"
        assert "Not a directory" in str(files.problem("inner/file/x"))
