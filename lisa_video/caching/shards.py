"""One file of a cache: encodings by key, each with a checksum.

A shard is a safetensors file. Its metadata name the version, the checksum of each entry and the
videos that were read for it, so that a cache can be put together from its shards alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lisa_video.errors import UserError

FORMAT = "lisa_video_cache"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FileState:
    """What tells, without reading it, that a file has not changed."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Raises UserError where there is no such file."""
        try:
            found = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class ShardInfo:
    """What a shard says about itself."""

    name: str
    """File name."""
    size: int
    """Bytes of the file."""
    checksums: dict[str, int]
    """CRC-32 of each entry's bytes, by key."""
    videos: dict[str, FileState]
    """Videos that were read for it, by `video_key`."""
    models: list[str]
    """Hashes of the encoders that made it, as in `EncoderKeys`."""


def write_shard(
    folder: Path,
    tensors: Mapping[str, Tensor],
    videos: Mapping[str, FileState],
    models: Sequence[str],
) -> ShardInfo:
    """Write encodings whole or not at all; the same keys make the same file name.

    Raises UserError where the file cannot be written, such as on a full disk.
    """
    name = hashlib.sha256("\n".join(sorted(tensors)).encode()).hexdigest()[:32] + SUFFIX
    kept = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    checksums = {key: checksum(tensor) for key, tensor in kept.items()}
    states = {digest: [state.size, state.mtime_ns] for digest, state in videos.items()}
    data = save(kept, header(checksums=checksums, videos=states, models=list(models)))
    write_whole(folder / name, data)
    return ShardInfo(name, len(data), checksums, dict(videos), list(models))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then rename it; UserError where that fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write this file: {error.strerror}; what was written before stays valid"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_info(path: Path) -> ShardInfo:
    """What a shard holds, from its header; raises UserError where it is damaged or no shard."""
    try:
        with safe_open(path, framework="pt") as file:
            values = read_header(path, file.metadata())
            keys = set(file.keys())
        checksums = {str(key): int(value) for key, value in values["checksums"].items()}
        states = {str(key): list(value) for key, value in values["videos"].items()}
        videos = {key: FileState(int(size), int(time)) for key, (size, time) in states.items()}
        if checksums.keys() != keys:
            raise ValueError("its entries are not those that it lists")
        return ShardInfo(path.name, path.stat().st_size, checksums, videos, values["models"])
    except UserError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, str(error)) from None


def header(**values: object) -> dict[str, str]:
    """Metadata of a safetensors file; in one entry, since several have no order of their own."""
    return {FORMAT: json.dumps({"version": FORMAT_VERSION, **values})}


def read_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What `header` put there; UserError where a file is of another version, or of no cache."""
    if not metadata or FORMAT not in metadata:
        raise UserError(f"{path}: not a file of a cache that lisa_video wrote")
    values: dict[str, Any] = json.loads(metadata[FORMAT])
    if values["version"] != FORMAT_VERSION:
        raise UserError(
            f"{path}: cache of version {values['version']}, this lisa_video reads "
            f"{FORMAT_VERSION}; make it again in another folder"
        )
    return values


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a contiguous tensor's bytes."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def damaged(path: Path, problem: str) -> UserError:
    """What to raise for a file of a cache that is not as it was written."""
    return UserError(
        f"{path}: damaged ({problem}); remove this file and run pipelines/cache.py again"
    )
