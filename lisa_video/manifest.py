"""The dataset format, version 2: a folder of clips, pose files and a manifest; see data/README.md.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import clip_sha256
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.video import even_size, write_video

MANIFEST = "manifest.jsonl"
FORMAT = "lisa_video"
FORMAT_VERSION = 2
CLIP_FOLDER = "clips"
POSE_FOLDER = "poses"

_NAME_RULE = "letters, digits, '.', '_' and '-', no '.' or '-' in front"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value))


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


def load_manifest(root: Path) -> list[ManifestEntry]:
    """Read and check the manifest of a dataset; the clips themselves are not opened.

    Raises:
        UserError: no manifest, another version, or a line that is not right; the message names the
            file and the line, counted from 1.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise UserError(f"{root}: no such dataset folder")
    if not path.is_file():
        raise UserError(f"{root}: not a dataset, it has no {MANIFEST}")
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    _check_header(_parse(lines[0], path, 1), path)
    entries: list[ManifestEntry] = []
    first_seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _entry(_parse(line, path, number), path, number)
        if entry.id in first_seen:
            _refuse(path, number, f"id '{entry.id}' is already that of line {first_seen[entry.id]}")
        first_seen[entry.id] = number
        for key in ("video", "poses"):
            _check_path(root, getattr(entry, key), key, path, number)
        entries.append(entry)
    if not entries:
        raise UserError(f"{path}: lists no clip")
    return entries


def select_split(entries: Sequence[ManifestEntry], split: str, root: Path) -> list[ManifestEntry]:
    """The entries of one split, in the manifest's order; UserError where it has none."""
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        counts = Counter(entry.split for entry in entries)
        known = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise UserError(f"{root}: has no split '{split}', known: {known}")
    return chosen


class DatasetWriter:
    """Write a dataset clip by clip, as a context manager.

    The manifest appears when the block ends well; before that, or after an error, the folder holds
    clips but is not a dataset.

    Args:
        root: folder to make; it may exist without clips of an earlier dataset in it.
        crf: quality of the clips, see `VideoWriter`.

    Raises:
        UserError: the folder holds a dataset or the clips of an interrupted one.
    """

    def __init__(self, root: Path, *, crf: int = 12) -> None:
        self.root, self._crf = root, crf
        self._entries: dict[str, ManifestEntry] = {}
        if (root / MANIFEST).exists():
            raise UserError(f"{root}: holds a dataset already; choose another folder")
        for name in (CLIP_FOLDER, POSE_FOLDER):
            folder = root / name
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise UserError(f"{folder}: left by another run; remove it or choose another root")
        try:
            for name in (CLIP_FOLDER, POSE_FOLDER):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{root}: cannot make this folder: {error.strerror}") from None

    def __enter__(self) -> DatasetWriter:
        return self

    def add(
        self, id: str, frames: NDArray[np.uint8], poses: PoseSequence, *, caption: str, split: str
    ) -> ManifestEntry:
        """Write one clip and its poses.

        Args:
            id: names the files; see `ManifestEntry`, also for the split.
            frames: uint8 (F, H, W, 3). An odd size becomes even as `VideoWriter` does it; the
                keypoints stay where they are.
            poses: of these frames, in their pixels; its fps is the clip's.
            caption: what is seen, in one line.
            split: "train", "validation" or another name.

        Raises:
            UserError: a bad or repeated id, a bad split, or poses of another length or size.
        """
        if not _is_name(id):
            raise UserError(f"clip id {id!r}: use {_NAME_RULE}")
        if id in self._entries:
            raise UserError(f"clip id '{id}' is given twice")
        if not _is_name(split):
            raise UserError(f"clip '{id}': its split is {split!r}, use {_NAME_RULE}")
        check_lengths(id, len(frames), len(poses))
        height, width = frames.shape[1:3]
        check_sizes(id, (width, height), (poses.width, poses.height))
        # Padding is added at the right and at the bottom, so no keypoint moves.
        width, height = even_size(width, height)
        video, pose_file = f"{CLIP_FOLDER}/{id}.mp4", f"{POSE_FOLDER}/{id}.npz"
        write_video(self.root / video, frames, poses.fps, crf=self._crf)
        replace(poses, width=width, height=height).save(self.root / pose_file)
        entry = ManifestEntry(
            id=id,
            video=video,
            poses=pose_file,
            caption=caption,
            fps=float(poses.fps),
            frames=len(frames),
            width=width,
            height=height,
            split=split,
            people=poses.keypoints.shape[1],
            sha256=clip_sha256(self.root / video),
        )
        self._entries[id] = entry
        return entry

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            write_manifest(self.root, list(self._entries.values()))


def write_manifest(root: Path, entries: Iterable[ManifestEntry]) -> None:
    """Write the manifest of a dataset, whole or not at all; an earlier one is replaced.

    Raises:
        UserError: there is no entry, or the file cannot be written.
    """
    temporary = root / f".{MANIFEST}.{os.getpid()}.tmp"
    count = 0
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(_json_line({"format": FORMAT, "version": FORMAT_VERSION}))
            for entry in entries:
                file.write(_json_line(asdict(entry)))
                count += 1
        if not count:
            raise UserError(f"{root}: no clip was added, so there is no dataset to write")
        os.replace(temporary, root / MANIFEST)
    except OSError as error:
        raise UserError(f"{root / MANIFEST}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _json_line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def check_lengths(source: str, video_frames: int, pose_frames: int) -> None:
    """UserError where a video and its poses have different numbers of frames."""
    if video_frames != pose_frames:
        raise UserError(
            f"{source}: the video has {video_frames} frames, its poses have {pose_frames}; "
            "extract the poses from this very file"
        )


def check_sizes(source: str, video: tuple[int, int], poses: tuple[int, int]) -> None:
    """UserError where poses are in the pixels of a video of another size (width, height)."""
    if video != poses:
        raise UserError(
            f"{source}: the video has {video[0]}x{video[1]} pixels, its poses are for "
            f"{poses[0]}x{poses[1]}; extract the poses from this very file"
        )


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    def no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        value = json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError):
        _refuse(path, number, "not valid JSON")
    if not isinstance(value, dict):
        _refuse(path, number, "not a JSON object")
    return value


def _check_header(header: dict[str, Any], path: Path) -> None:
    if header.get("format") != FORMAT or "version" not in header:
        example = json.dumps({"format": FORMAT, "version": FORMAT_VERSION})
        _refuse(path, 1, f"not a dataset's header, which is {example}")
    if header["version"] != FORMAT_VERSION:
        _refuse(
            path,
            1,
            f"format version {header['version']}; this lisa_video reads version {FORMAT_VERSION}",
        )


_Check = tuple[Callable[[Any], bool], str]
_TEXT: _Check = (lambda value: isinstance(value, str), "text")
_NAME: _Check = (_is_name, f"a name of {_NAME_RULE}")
_COUNT: _Check = (lambda value: type(value) is int and value >= 1, "a whole number from 1")
_PEOPLE: _Check = (lambda value: type(value) is int and value >= 0, "a whole number from 0")
_SHA256: _Check = (
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value)),
    "64 digits of 0-9 and a-f",
)
_RATE: _Check = (
    # Compared, not converted: JSON knows numbers that no float can hold.
    lambda value: type(value) in (int, float) and 0 < value <= 10_000,
    "a number above 0",
)
_CHECKS: dict[str, _Check] = {
    "id": _NAME,
    "video": _TEXT,
    "poses": _TEXT,
    "caption": _TEXT,
    "fps": _RATE,
    "frames": _COUNT,
    "width": _COUNT,
    "height": _COUNT,
    "split": _NAME,
    "people": _PEOPLE,
    "sha256": _SHA256,
}
assert list(_CHECKS) == [field.name for field in fields(ManifestEntry)]


def _entry(line: dict[str, Any], path: Path, number: int) -> ManifestEntry:
    for key, (is_right, wanted) in _CHECKS.items():
        if key not in line:
            _refuse(path, number, f"key '{key}' is missing")
        if not is_right(line[key]):
            found = textwrap.shorten(json.dumps(line[key]), 60)
            _refuse(path, number, f"'{key}' is {found}, it must be {wanted}")
    unknown = sorted(set(line) - set(_CHECKS))
    if unknown:
        _refuse(path, number, f"unknown key '{unknown[0]}', known: {', '.join(_CHECKS)}")
    return ManifestEntry(**{**line, "fps": float(line["fps"])})


def _check_path(root: Path, value: str, key: str, path: Path, number: int) -> None:
    """Files of a dataset lie inside its folder, also after following links."""
    posix = PurePosixPath(value)
    if posix.is_absolute() or PureWindowsPath(value).drive or "\\" in value:
        _refuse(path, number, f"'{key}' is {value!r}, it must be relative, with forward slashes")
    if ".." in posix.parts:
        _refuse(path, number, f"'{key}' is {value!r}, it must not contain '..'")
    try:
        real = (root / posix).resolve()
        is_file = real.is_file()
    except (OSError, ValueError, RuntimeError):
        _refuse(path, number, f"'{key}' is {value!r}, which cannot be a path")
    if not real.is_relative_to(root.resolve()):
        _refuse(path, number, f"'{key}' is {value!r}, a link out of the dataset's folder")
    if not is_file:
        _refuse(path, number, f"{key} file {value!r} does not exist")


def _refuse(path: Path, number: int, problem: str) -> NoReturn:
    raise UserError(f"{path}: line {number}: {problem}")
