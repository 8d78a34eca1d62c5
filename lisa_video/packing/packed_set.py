"""A packed set: tar shards, the manifest of their clips, and where in the shards each clip lies.

    manifest.jsonl              as in the dataset; names of files stand for themselves
    index.safetensors           see `PackedIndex`
    clips-00000.tar ...         see `archive`; each holds clips of one split

The index comes last: a folder without one is no packed set.

Shapes: N clips, P parts of each: JSON and poses, then the video or one part for each view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.packing.archive import PartRange, read_part
from lisa_video.packing.storage import Storage

FORMAT = "lisa_video_shards"
FORMAT_VERSION = 1
INDEX = "index.safetensors"
KEY_BYTES = 16

Kind = Literal["clips", "encodings"]


@dataclass(frozen=True, eq=False)
class PackedIndex:
    """Where each clip of the manifest lies."""

    kind: Kind
    """clips: with their videos; encodings: with the latents and text states of their views."""
    names: list[str]
    """File names of the shards, (S,)."""
    sizes: list[int]
    """Bytes of these files, (S,)."""
    shards: NDArray[np.int32]
    """(N,): place of the clip's shard in `names`."""
    bounds: NDArray[np.int64]
    """(N, P + 1): where each part begins, and the last one ends, in bytes of the shard."""
    checksums: NDArray[np.int64]
    """(N, P): CRC-32 of each part."""
    keys: NDArray[np.uint8]
    """(N, P - 1, 16): keys of the latents of each view; none where videos are packed."""
    models: list[str]
    """Hashes of the encoders, as in `EncoderKeys`."""
    empty_states: Tensor | None
    """Text states of the empty caption, (L, D), where encodings are packed."""

    def part(self, clip: int, part: int) -> PartRange:
        """Where a part of a clip is."""
        start, stop = self.bounds[clip, part : part + 2].tolist()
        return PartRange(start, stop, int(self.checksums[clip, part]))

    def view_of(self, clip: int, key: str) -> int | None:
        """The view of a clip whose latents have this key."""
        hits = (self.keys[clip] == np.frombuffer(bytes.fromhex(key), np.uint8)).all(axis=1)
        return int(hits.argmax()) if hits.any() else None

    def to_bytes(self) -> bytes:
        header = {
            "version": FORMAT_VERSION,
            "kind": self.kind,
            "shards": dict(zip(self.names, self.sizes, strict=True)),
            "models": self.models,
        }
        tensors = {
            "shards": torch.from_numpy(self.shards),
            "bounds": torch.from_numpy(self.bounds),
            "checksums": torch.from_numpy(self.checksums),
            "keys": torch.from_numpy(self.keys),
        }
        if self.empty_states is not None:
            tensors["empty_states"] = self.empty_states.contiguous()
        return save(tensors, {FORMAT: json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> PackedIndex:
        """Raises UserError where it is of another version, damaged, or contradicts itself."""
        header = _header(data, source)
        try:
            tensors = load(data)
            arrays = {
                name: tensors[name].numpy() for name in ("shards", "bounds", "checksums", "keys")
            }
            index = cls(
                kind=header["kind"],
                names=list(header["shards"]),
                sizes=[int(size) for size in header["shards"].values()],
                models=list(header["models"]),
                empty_states=tensors.get("empty_states"),
                **arrays,
            )
            _check_columns(index)
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{source}: damaged: {error}; copy it again") from None
        return index


def _header(data: bytes, source: str) -> Mapping[str, Any]:
    """The metadata of a safetensors file that `to_bytes` made."""
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        header = json.loads(metadata[FORMAT])
        version = header["version"]
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{source}: not the index of a packed set") from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{source}: packed set of version {version}, this lisa_video reads {FORMAT_VERSION}"
        )
    return header


def _check_columns(index: PackedIndex) -> None:
    """ValueError unless every part lies inside its shard, and shards are plain file names."""
    clips, parts = index.checksums.shape
    if index.kind not in ("clips", "encodings"):
        raise ValueError(f"kind {index.kind!r}")
    if index.shards.shape != (clips,) or index.bounds.shape != (clips, parts + 1) or parts < 2:
        raise ValueError("its columns do not fit each other")
    if index.kind == "encodings" and index.keys.shape != (clips, parts - 1, KEY_BYTES):
        raise ValueError("its keys do not fit its parts")
    if index.kind == "encodings" and index.empty_states is None:
        raise ValueError("it has no states of the empty caption")
    if any("/" in name or "\\" in name or name.startswith(".") for name in index.names):
        raise ValueError("a shard is not named by a plain file name")
    if not ((index.shards >= 0) & (index.shards < len(index.names))).all():
        raise ValueError("a clip lies in no shard")
    ends = np.array(index.sizes, np.int64)[index.shards]
    rising = (np.diff(index.bounds, axis=1) >= 0).all()
    if not rising or (index.bounds[:, 0] < 0).any() or (index.bounds[:, -1] > ends).any():
        raise ValueError("a clip lies outside of its shard")


class PackedSet:
    """Clips read from the shards at a URL, part by part; picklable, and to be shared by processes.

    Raises UserError where there is no packed set, it is of another version, or a shard is missing or
    of another length than when it was written; the message names the file.
    """

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        if not self.storage.exists(INDEX):
            raise UserError(
                f"{url}: no packed set there (no {INDEX}); pipelines/pack_shards.py makes one"
            )
        self.index = PackedIndex.from_bytes(self.storage.read(INDEX), self.storage.name(INDEX))

    def __len__(self) -> int:
        """Number of clips N."""
        return len(self.index.shards)

    def check_shards(self) -> None:
        """UserError where a shard is missing, or longer or shorter than it was written."""
        for name, size in zip(self.index.names, self.index.sizes, strict=True):
            found = self.storage.size(name)
            if found is None:
                raise UserError(f"{self.storage.name(name)}: this shard is missing; copy it again")
            if found != size:
                raise UserError(
                    f"{self.storage.name(name)}: {found} bytes instead of {size}: this shard is "
                    "cut short or changed; copy it again"
                )

    def read(self, clip: int, part: int) -> dict[str, bytes]:
        """The files of a part, by what follows the dot of their names; errors as `read_part`."""
        name = self.index.names[self.index.shards[clip]]
        wanted = self.index.part(clip, part)
        data = self.storage.read(name, wanted.start, wanted.stop)
        return read_part(data, clip, wanted, self.storage.name(name))
