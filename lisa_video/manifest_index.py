"""The clips of a dataset, also of a million of them: numbers in columns, lines read when asked for.

Shape legend: N clips.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.manifest_lines import (
    DatasetFiles,
    ManifestEntry,
    check_header,
    numbered_blocks,
    parse_block,
    parse_entry,
    refuse,
)

MANIFEST = "manifest.jsonl"
CHECKED_CLIPS = 10_000
"""Up to so many clips, opening a dataset looks for all of its files."""

_BLOCK = 1 << 22  # bytes read at a time, and the longest line


@dataclass(frozen=True, eq=False)
class ManifestColumns:
    """What choosing clips needs of each, (N,) each."""

    frames: NDArray[np.int32]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    people: NDArray[np.int32]
    fps: NDArray[np.float64]
    split: NDArray[np.int32]
    """Index into `Manifest.split_names`."""
    offset: NDArray[np.int64]
    """Byte at which the line begins."""
    number: NDArray[np.int64]
    """Of the line, counted from 1."""

    def take(self, indices: NDArray[np.intp]) -> ManifestColumns:
        """The same of some clips."""
        return ManifestColumns(*(column[indices] for column in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Manifest:
    """The clips of a dataset in the manifest's order, or some of them.

    Every line is checked at opening, but only numbers are kept: 44 bytes a clip. `[i]` reads its
    line again. It can be pickled, and read from several processes and threads.
    """

    root: Path
    columns: ManifestColumns
    split_names: tuple[str, ...]
    _state: tuple[int, int]
    """Size and time of the file that was read."""

    @classmethod
    def open(cls, root: Path, *, check_files: bool | None = None) -> Manifest:
        """Read and check the manifest of a dataset; the clips themselves are not opened.

        Args:
            root: folder of the dataset.
            check_files: look for every file; None does so for at most `CHECKED_CLIPS` clips.
                `[i]` does so in any case.

        Raises:
            UserError: no manifest, another version, a line that is not right, or a missing file;
                the message names the file and the line, counted from 1.
        """
        path = root / MANIFEST
        if not root.is_dir():
            raise UserError(f"{root}: no such dataset folder")
        if not path.is_file():
            raise UserError(f"{root}: not a dataset, it has no {MANIFEST}")
        try:
            with path.open("rb") as file:
                state = _file_state(file)
                columns, names, hashes = _read_columns(file, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        manifest = cls(root, columns, names, state)
        if not len(manifest):
            raise UserError(f"{path}: lists no clip")
        manifest._refuse_repeated_ids(hashes)
        if check_files or (check_files is None and len(manifest) <= CHECKED_CLIPS):
            files = DatasetFiles(root)
            for index, entry in enumerate(manifest.metadata()):
                files.check(entry, path, int(columns.number[index]))
        return manifest

    def __len__(self) -> int:
        """Number of clips N."""
        return len(self.columns.frames)

    def __getitem__(self, index: int) -> ManifestEntry:
        """Clip `index`, whose files exist and lie inside the dataset's folder.

        Raises:
            UserError: one of its files does not, or the manifest changed since it was opened.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        (entry,) = self.metadata([index])
        DatasetFiles(self.root).check(entry, self.root / MANIFEST, self.columns.number[index])
        return entry

    def metadata(self, indices: Sequence[int] | None = None) -> Iterator[ManifestEntry]:
        """Entries of all clips, or of those at `indices`, without a look at their files.

        Raises:
            UserError: the manifest changed since it was opened.
        """
        path = self.root / MANIFEST
        wanted = range(len(self)) if indices is None else indices
        for index, line in zip(wanted, self.lines(wanted), strict=True):
            yield parse_entry(line, path, int(self.columns.number[index]))

    def lines(self, indices: Sequence[int] | None = None) -> Iterator[bytes]:
        """Lines of all clips, or of those at `indices`, as they stand in the file.

        Raises:
            UserError: the manifest changed since it was opened.
        """
        path = self.root / MANIFEST
        try:
            with path.open("rb") as file:
                if _file_state(file) != self._state:
                    raise UserError(f"{path}: changed since it was opened; start again")
                for index in range(len(self)) if indices is None else indices:
                    file.seek(self.columns.offset[index])
                    yield file.readline().removesuffix(b"\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None

    @property
    def splits(self) -> Mapping[str, int]:
        """Clips of each split, in the order of names."""
        counts = np.bincount(self.columns.split, minlength=len(self.split_names))
        named = zip(self.split_names, counts.tolist(), strict=True)
        return {name: count for name, count in sorted(named) if count}

    def split(self, name: str) -> Manifest:
        """The clips of one split; UserError, which lists the known ones, where it has none."""
        if name not in self.splits:
            known = ", ".join(f"{name} ({count})" for name, count in self.splits.items())
            raise UserError(f"{self.root}: has no split '{name}', known: {known}")
        return self.take(np.flatnonzero(self.columns.split == self.split_names.index(name)))

    def take(self, indices: NDArray[np.intp]) -> Manifest:
        """The clips at `indices`, in that order."""
        return replace(self, columns=self.columns.take(indices))

    def _refuse_repeated_ids(self, hashes: NDArray[np.int64]) -> None:
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
        first_seen: dict[str, int] = {}
        for index, entry in zip(suspects, self.metadata(suspects.tolist()), strict=True):
            number = int(self.columns.number[index])
            if entry.id in first_seen:
                problem = f"id '{entry.id}' is already that of line {first_seen[entry.id]}"
                refuse(self.root / MANIFEST, number, problem)
            first_seen[entry.id] = number


def _read_columns(
    file: BinaryIO, path: Path
) -> tuple[ManifestColumns, tuple[str, ...], NDArray[np.int64]]:
    """The columns, the names of splits, and a hash of each id (N,)."""
    header = file.readline(_BLOCK)
    check_header(header.removesuffix(b"\n"), path)
    codes: dict[str, int] = {}
    blocks, hashes = [], [np.empty(0, np.int64)]
    offset = len(header)
    for number, block in numbered_blocks(file, path, _BLOCK):
        entries = parse_block(block, path, number)
        blocks.append(_block_columns(entries, block, number, offset, codes))
        hashes.append(np.array([hash(entry.id) for entry in entries], np.int64))
        offset += len(block)
    empty = _block_columns([], b"", 2, offset, codes)
    stacked = zip(*(vars(each).values() for each in [empty, *blocks]), strict=True)
    columns = ManifestColumns(*(np.concatenate(parts) for parts in stacked))
    return columns, tuple(codes), np.concatenate(hashes)


def _block_columns(
    entries: Sequence[Any], block: bytes, number: int, offset: int, codes: dict[str, int]
) -> ManifestColumns:
    count = len(entries)
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[:count]
    return ManifestColumns(
        frames=np.array([entry.frames for entry in entries], np.int32),
        width=np.array([entry.width for entry in entries], np.int32),
        height=np.array([entry.height for entry in entries], np.int32),
        people=np.array([entry.people for entry in entries], np.int32),
        fps=np.array([entry.fps for entry in entries], np.float64),
        split=np.array([codes.setdefault(e.split, len(codes)) for e in entries], np.int32),
        offset=offset + starts,
        number=number + np.arange(count, dtype=np.int64),
    )


def _file_state(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
