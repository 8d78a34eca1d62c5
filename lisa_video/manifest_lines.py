"""Lines of a manifest: what each must say, and which file of the dataset it may name.

A line is checked twice at most: msgspec, which is quick, takes a block of right lines; where it or a
check over the block finds fault, each line is looked at by itself, to name it and what is wrong.
"""

from __future__ import annotations

import json
import os
import re
import stat
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn, get_type_hints

import msgspec

from lisa_video.errors import UserError

FORMAT = "lisa_video"
FORMAT_VERSION = 2
NAME_RULE = "letters, digits, '.', '_' and '-', no '.' or '-' in front"

_LARGEST = 2**31 - 1
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_FASTEST = 10_000  # frames per second


@dataclass(frozen=True)
class ManifestEntry:
    """One clip: a line of the manifest."""

    id: str
    """Unique in the dataset; letters, digits, `.`, `_` and `-`, fit for a file name."""
    video: str
    """Path of the clip below the dataset's folder, with forward slashes."""
    poses: str
    """Path of the pose file, likewise."""
    caption: str
    """What is seen, as a prompt; may be empty."""
    fps: float
    """Frames per second."""
    frames: int
    """Pictures in the video, and in the pose file."""
    width: int
    """Width of the video in pixels."""
    height: int
    """Height of the video in pixels."""
    split: str
    """Such as "train" or "validation"; of the same letters as an id."""
    people: int
    """Columns of people in the pose file; 0 where nobody was found."""
    sha256: str
    """SHA-256 of the video file, as 64 hexadecimal digits."""


def is_name(value: Any) -> bool:
    """Whether a value may be an id or the name of a split."""
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value))


def refuse(path: Path, number: int, problem: str) -> NoReturn:
    """UserError that names a line of the manifest, counted from 1."""
    raise UserError(f"{path}: line {number}: {problem}")


# Lines by themselves, with a message for each mistake.


def check_header(line: bytes, path: Path) -> None:
    """UserError unless `line` is the first of a manifest of this version."""
    header = _parse(line, path, 1)
    if header.get("format") != FORMAT or "version" not in header:
        example = json.dumps({"format": FORMAT, "version": FORMAT_VERSION})
        refuse(path, 1, f"not a dataset's header, which is {example}")
    if header["version"] != FORMAT_VERSION:
        refuse(
            path,
            1,
            f"format version {header['version']}; this lisa_video reads version {FORMAT_VERSION}",
        )


def parse_entry(line: bytes, path: Path, number: int) -> ManifestEntry:
    """The clip of a line.

    Args:
        line: without its end.
        path: of the manifest, for messages; so is the line's number.

    Raises:
        UserError: not one JSON object with the right keys and values; the files are not looked at.
    """
    values = _parse(line, path, number)
    for key, (is_right, wanted) in _CHECKS.items():
        if key not in values:
            refuse(path, number, f"key '{key}' is missing")
        if not is_right(values[key]):
            found = textwrap.shorten(json.dumps(values[key]), 60)
            refuse(path, number, f"'{key}' is {found}, it must be {wanted}")
    unknown = sorted(set(values) - set(_CHECKS))
    if unknown:
        refuse(path, number, f"unknown key '{unknown[0]}', known: {', '.join(_CHECKS)}")
    for key in ("video", "poses"):
        problem = _path_problem(values[key])
        if problem:
            refuse(
                path, number, f"'{key}' is {textwrap.shorten(repr(values[key]), 120)}, {problem}"
            )
    return ManifestEntry(**{**values, "fps": float(values["fps"])})


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    def no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        value = json.loads(line.decode("utf-8"), parse_constant=no_constant)
    except UnicodeDecodeError:
        refuse(path, number, "not UTF-8 text")
    except (ValueError, RecursionError):
        refuse(path, number, "not valid JSON")
    if not isinstance(value, dict):
        refuse(path, number, "not a JSON object")
    return value


_Check = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> _Check:
    return (
        lambda value: type(value) is int and least <= value <= _LARGEST,
        f"a whole number from {least}",
    )


def _is_text(value: Any) -> bool:
    # JSON can escape half of a surrogate pair, which no file name or prompt can hold.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


_TEXT: _Check = (_is_text, "text")
_NAME: _Check = (is_name, f"a name of {NAME_RULE}")
_SHA256: _Check = (
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value)),
    "64 digits of 0-9 and a-f",
)
_RATE: _Check = (
    # Compared, not converted: JSON knows numbers that no float can hold.
    lambda value: type(value) in (int, float) and 0 < value <= _FASTEST,
    "a number above 0",
)
_CHECKS: dict[str, _Check] = {
    "id": _NAME,
    "video": _TEXT,
    "poses": _TEXT,
    "caption": _TEXT,
    "fps": _RATE,
    "frames": _whole(1),
    "width": _whole(1),
    "height": _whole(1),
    "split": _NAME,
    "people": _whole(0),
    "sha256": _SHA256,
}
assert list(_CHECKS) == [field.name for field in fields(ManifestEntry)]


def _path_problem(value: str) -> str | None:
    """What is wrong with a path as text."""
    posix = PurePosixPath(value)
    if posix.is_absolute() or PureWindowsPath(value).drive or "\\" in value:
        return "it must be relative, with forward slashes"
    if ".." in posix.parts:
        return "it must not contain '..'"
    if not posix.parts or "\0" in value:
        return "which cannot be a path"
    return None


# Blocks of lines, checked together.

_Line = msgspec.defstruct(
    "_Line", list(get_type_hints(ManifestEntry).items()), forbid_unknown_fields=True, gc=False
)
_DECODER = msgspec.json.Decoder(_Line)


def parse_block(block: bytes, path: Path, first: int) -> Sequence[Any]:
    """The clips of whole lines, as objects with the attributes of `ManifestEntry`.

    Args:
        block: lines, each with its end.
        path: of the manifest, for messages.
        first: number of the first line.

    Raises:
        UserError: as `parse_entry`, for the first line that is not right.
    """
    try:
        entries = _DECODER.decode_lines(block)
    except (ValueError, RecursionError):
        entries = []
    # Lines may hold no object or two, so the count tells.
    if len(entries) == block.count(b"\n") and _all_right(entries):
        return entries
    lines = block.removesuffix(b"\n").split(b"\n")
    return [parse_entry(line, path, first + index) for index, line in enumerate(lines)]


def _all_right(entries: Sequence[Any]) -> bool:
    """Whether the values, of the right types already, are all as `_CHECKS` and `_path_problem` ask.

    Text is checked end to end and numbers by their extremes: that is a few calls for thousands of
    lines. It may suspect right lines, it passes no wrong one.
    """
    digests = [entry.sha256 for entry in entries]
    counts = [each for e in entries for each in (e.frames, e.width, e.height)]
    people = [entry.people for entry in entries]
    rates = [entry.fps for entry in entries]
    return (
        _are_names([entry.id for entry in entries])
        and _are_names(list({entry.split for entry in entries}))
        and set(map(len, digests)) == {64}
        and _made_of(b"0123456789abcdef", "".join(digests))
        and min(counts) >= 1
        and min(people) >= 0
        and max(max(counts), max(people)) <= _LARGEST
        and 0 < min(rates) <= max(rates) <= _FASTEST
        and _are_paths([path for entry in entries for path in (entry.video, entry.poses)])
    )


def _are_names(values: Sequence[str]) -> bool:
    firsts = {value[:1] for value in values}
    return (
        "" not in firsts
        and _made_of(_LETTERS + b"_", "".join(firsts))
        and _made_of(_LETTERS + b"_.-", "".join(values))
    )


def _made_of(letters: bytes, text: str) -> bool:
    return not text.encode().translate(None, letters)


def _are_paths(values: Sequence[str]) -> bool:
    """Whether none has a mark that every path which `_path_problem` refuses has."""
    text = "\n".join(["", *values, ""])
    return not any(mark in text for mark in ("..", "\\", ":", "\0", "\n/", "\n.", "\n\n"))


# The files that lines name.


class DatasetFiles:
    """Finds files of a dataset, which lie inside its folder also after following links.

    It remembers which folders are inside, so that a million files cost a million look-ups.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root: str | None = None
        self._inside: dict[str, bool] = {}

    def problem(self, value: str) -> str | None:
        """What is wrong with the file that a manifest names, or None.

        `value` is a path that `parse_entry` let pass.
        """
        folder, _, name = value.rpartition("/")
        try:
            if not self._is_inside(folder):
                return "a link out of the dataset's folder"
            path = os.path.join(self.root, folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(path, strict=True)
                if not self._holds(real):
                    return "a link out of the dataset's folder"
                mode = os.stat(real).st_mode
        except FileNotFoundError:
            return "which does not exist"
        except (OSError, ValueError) as error:
            return f"which cannot be opened: {getattr(error, 'strerror', None) or error}"
        return None if stat.S_ISREG(mode) else "which is not a file"

    def check(self, entry: ManifestEntry, path: Path, number: int) -> None:
        """UserError, which names the manifest's line, where a file of the clip is missing, a link
        out of the folder, or no file."""
        for key in ("video", "poses"):
            value = getattr(entry, key)
            problem = self.problem(value)
            if problem:
                refuse(path, number, f"'{key}' is {textwrap.shorten(repr(value), 120)}, {problem}")

    def _is_inside(self, folder: str) -> bool:
        if folder not in self._inside:
            self._inside[folder] = self._holds(
                os.path.realpath(os.path.join(self.root, folder), strict=True)
            )
        return self._inside[folder]

    def _holds(self, real: str) -> bool:
        if self._real_root is None:
            self._real_root = os.path.realpath(self.root)
        return os.path.commonpath([self._real_root, real]) == self._real_root


def numbered_blocks(file: Any, path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines of about `size` bytes and the number of the first; the header is read already.

    Raises UserError for a line longer than `size`.
    """
    number, rest = 2, b""
    while piece := file.read(size):
        cut = piece.rfind(b"\n") + 1
        if cut:
            block = rest + piece[:cut]
            yield number, block
            number, rest = number + block.count(b"\n"), piece[cut:]
        else:
            rest += piece
        if len(rest) > size:
            refuse(path, number, f"longer than {size} bytes")
    if rest:
        yield number, rest + b"\n"
