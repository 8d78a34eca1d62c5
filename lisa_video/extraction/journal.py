"""What an extraction has done so far, kept so that a killed run loses only what it was doing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lisa_video.errors import UserError
from lisa_video.extraction.records import Source, SourceRecord


class _Place(NamedTuple):
    """Where a record stands, and of which state of its video it is."""

    offset: int
    size: int
    mtime_ns: int


class Journal:
    """One JSON line for each video that is done, on disk before `add` returns; a context manager.

    Only places are held in memory. A last line that is torn, as by a kill or a full disk, is cut
    off when the journal is opened.

    Args:
        path: of the file; it is made where it is not there.
        folder: of the videos.

    Raises:
        UserError: a line before the last is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder
        self._places: dict[str, _Place] = {}
        try:
            # Unbuffered: what a full disk refused must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
            self._end = self._scan()
            self._file.truncate(self._end)
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def holds(self, source: Source) -> bool:
        """Whether the video is done, as it is now."""
        place = self._places.get(source.relative)
        return place is not None and place[1:] == (source.size, source.mtime_ns)

    def forget(self, source: Source) -> bool:
        """Leave out what is noted of an earlier state of a video; gives whether there was any."""
        return self._places.pop(source.relative, None) is not None

    def add(self, record: SourceRecord) -> None:
        """Note what came of a video, in place of an earlier record of it."""
        line = memoryview((json.dumps(record.to_json()) + "\n").encode())
        offset, self._end = self._end, self._end + len(line)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be written: {error.strerror}; run again to go on from here"
            ) from None
        source = record.source
        self._places[source.relative] = _Place(offset, source.size, source.mtime_ns)

    def records(self) -> Iterator[SourceRecord]:
        """The last record of each video, in the order of their paths' bytes."""
        with self._path.open("rb") as file:
            for _, place in sorted(self._places.items(), key=lambda item: os.fsencode(item[0])):
                file.seek(place.offset)
                yield self._parse(file.readline(), "a record")

    def _scan(self) -> int:
        """Find the records; gives the end of the last whole line."""
        end = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                source = self._parse(line, f"line {number}").source
                self._places[source.relative] = _Place(end, source.size, source.mtime_ns)
                end += len(line)
        return end

    def _parse(self, line: bytes, name: str) -> SourceRecord:
        try:
            return SourceRecord.from_json(self._folder, json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{self._path}: {name} is damaged; choose another out, or remove this file to "
                "begin anew"
            ) from None
