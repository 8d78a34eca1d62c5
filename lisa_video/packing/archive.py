"""Samples in tar shards, as WebDataset reads them: files of one sample share a name, and follow each
other.

    000000012.json            the clip's line of the manifest
    000000012.npz             its pose file
    000000012.mp4             the video; or, where encodings are packed,
    000000012.0.safetensors   what training reads of its first view, and so on

A sample is read in parts, each a range of bytes of the shard: one of JSON and poses, and one for the
video or for each view. Archives come from anywhere: nothing is unpacked under a name that they give,
and only files of these kinds are looked at.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lisa_video.errors import UserError

_END = bytes(1024)  # of every tar file
_MEMBER = re.compile(r"(\d{9})\.(json|npz|mp4|\d{1,4}\.safetensors)")


@dataclass(frozen=True)
class PartRange:
    """A part of a sample in its shard."""

    start: int
    stop: int
    checksum: int
    """CRC-32 of the bytes from `start` to `stop`."""


class ShardWriter:
    """A tar shard in a local file, written part by part; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write(_END)
        self._file.close()

    def add(self, number: int, part: Mapping[str, bytes]) -> PartRange:
        """Write one part of sample `number`: files by what follows the dot of their names."""
        start, data = self._file.tell(), _members(number, part)
        self._file.write(data)
        return PartRange(start, start + len(data), zlib.crc32(data))


def _members(number: int, part: Mapping[str, bytes]) -> bytes:
    """The files of a part as they stand in an archive."""
    try:
        import webdataset
    except ImportError:
        raise UserError(
            "packing: WebDataset is not installed; pip install 'lisa_video[webdataset]'"
        ) from None
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False, mtime=0.0, user="", group="") as writer:
        writer.write({"__key__": f"{number:09d}", **part})
        length = writer.tarstream.offset
    return stream.getvalue()[:length]


def json_line(value: dict[str, Any]) -> bytes:
    """A line of the manifest, as bytes."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def read_part(data: bytes, number: int, wanted: PartRange, source: str) -> dict[str, bytes]:
    """The files of one part of sample `number`, by what follows the dot of their names.

    Args:
        data: the bytes from `wanted.start` to `wanted.stop` of the shard, as far as it has them.
        source: the shard, for messages.

    Raises:
        UserError: the shard is cut short or damaged there, or holds files that do not belong in it.
    """
    length = wanted.stop - wanted.start
    if len(data) != length:
        raise UserError(
            f"{source}: cut short: {len(data)} of {length} bytes at {wanted.start}; copy it again"
        )
    if zlib.crc32(data) != wanted.checksum:
        raise UserError(
            f"{source}: damaged in bytes {wanted.start} to {wanted.stop}; copy it again"
        )
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                match = _MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or int(match[1]) != number:
                    raise UserError(
                        f"{source}: holds {member.name!r} where a file of sample {number:09d} "
                        "belongs; only shards of pipelines/pack_shards.py are read"
                    )
                stream = archive.extractfile(member)
                assert stream is not None
                files[match[2]] = stream.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source}: not a tar file at byte {wanted.start}: {error}") from None
    return files
