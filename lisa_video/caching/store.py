"""A folder of encodings: shards, and an index of them that opens quickly.

    shards/NAME.safetensors     see `shards`
    index.safetensors           all entries of the shards that were there when a run ended

The index only saves time: shards that it does not list, as a killed run leaves them, are read from
their own headers.

Shapes: N entries, S shards, V videos.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from lisa_video.caching.shards import (
    SUFFIX,
    FileState,
    ShardInfo,
    checksum,
    damaged,
    header,
    read_header,
    read_info,
    write_whole,
)
from lisa_video.errors import UserError

SHARDS = "shards"
INDEX = "index.safetensors"
KEY_BYTES = 16  # of the hexadecimal keys
DIGEST_BYTES = 32  # of a video_key
_OPEN_SHARDS = 64
_COLUMNS = ("keys", "shards", "checksums", "videos", "states")
# Plain bytes compare as fast as numbers do; NumPy pads both sides with zeros alike.
_KEY, _DIGEST = np.dtype(f"S{KEY_BYTES}"), np.dtype(f"S{DIGEST_BYTES}")


@dataclass(frozen=True, eq=False)
class CacheIndex:
    """Which entry lies in which shard; both tables are sorted, and where rows repeat, alike."""

    names: list[str]
    """File names of the shards, (S,)."""
    sizes: list[int]
    """Bytes of these files, (S,)."""
    keys: NDArray[np.bytes_]
    """(N,) of 16 bytes, sorted."""
    shards: NDArray[np.int32]
    """(N,): place of the entry's shard in `names`."""
    checksums: NDArray[np.uint32]
    """(N,): CRC-32 of the entry's bytes."""
    videos: NDArray[np.bytes_]
    """(V,) of 32 bytes, sorted: `video_key` of the videos read."""
    states: NDArray[np.int64]
    """(V, 2): size and time of the last change of each, when its content was read."""
    models: list[str]
    """Hashes of the encoders that entries were made by."""

    @classmethod
    def empty(cls) -> CacheIndex:
        return cls(
            [],
            [],
            np.empty(0, _KEY),
            np.empty(0, np.int32),
            np.empty(0, np.uint32),
            np.empty(0, _DIGEST),
            np.empty((0, 2), np.int64),
            [],
        )

    def rows(self, keys: Iterable[str]) -> NDArray[np.int64]:
        """Row of each hexadecimal key, -1 where there is none."""
        wanted = np.array([bytes.fromhex(key) for key in keys], dtype=_KEY)
        return _find(self.keys, wanted)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys for which there is no entry, each once, in their order."""
        rows = self.rows(keys).tolist()
        return list(dict.fromkeys(key for key, row in zip(keys, rows, strict=True) if row < 0))

    def states_of(self, digests: Iterable[str]) -> list[FileState | None]:
        """The recorded state of each video, by its `video_key`; None where it was never read."""
        wanted = np.array([bytes.fromhex(digest) for digest in digests], dtype=_DIGEST)
        rows = _find(self.videos, wanted).tolist()
        return [FileState(*self.states[row].tolist()) if row >= 0 else None for row in rows]

    def extended(self, infos: Sequence[ShardInfo]) -> CacheIndex:
        """This index with the entries and videos of further shards; what is newer wins."""
        if not infos:
            return self
        keys = [bytes.fromhex(key) for info in infos for key in info.checksums]
        checksums = [value for info in infos for value in info.checksums.values()]
        counts = [len(info.checksums) for info in infos]
        shards = np.repeat(np.arange(len(infos), dtype=np.int32) + len(self.names), counts)
        models = [model for info in infos for model in info.models]
        extended = replace(
            self,
            names=self.names + [info.name for info in infos],
            sizes=self.sizes + [info.size for info in infos],
            models=sorted({*self.models, *models}),
            **_sorted_columns(
                "keys",
                keys=np.concatenate([np.array(keys, _KEY), self.keys]),
                shards=np.concatenate([shards, self.shards]),
                checksums=np.concatenate([np.array(checksums, np.uint32), self.checksums]),
            ),
        )
        return extended.with_states(
            {k: state for info in infos for k, state in info.videos.items()}
        )

    def with_states(self, states: Mapping[str, FileState]) -> CacheIndex:
        """This index with later states of videos, by `video_key`."""
        if not states:
            return self
        digests = np.array([bytes.fromhex(digest) for digest in states], _DIGEST)
        values = np.array([[state.size, state.mtime_ns] for state in states.values()], np.int64)
        return replace(
            self,
            **_sorted_columns(
                "videos",
                videos=np.concatenate([digests, self.videos]),
                states=np.concatenate([values, self.states]),
            ),
        )

    def without(self, gone: set[str]) -> CacheIndex:
        """This index without the entries of some shards, by file name."""
        if not gone:
            return self
        kept = np.array([name not in gone for name in self.names], dtype=bool)
        moved = np.cumsum(kept, dtype=np.int32) - 1
        rows = kept[self.shards]
        sizes = dict(zip(self.names, self.sizes, strict=True))
        names = [name for name in self.names if name not in gone]
        return replace(
            self,
            names=names,
            sizes=[sizes[name] for name in names],
            keys=self.keys[rows],
            shards=moved[self.shards[rows]],
            checksums=self.checksums[rows],
        )

    def save(self, path: Path) -> None:
        """Raises UserError where it cannot be written."""
        metadata = header(shards=dict(zip(self.names, self.sizes, strict=True)), models=self.models)
        arrays: dict[str, NDArray[Any]] = {
            "keys": self.keys.view(np.uint8).reshape(-1, KEY_BYTES),
            "shards": self.shards,
            "checksums": self.checksums,
            "videos": self.videos.view(np.uint8).reshape(-1, DIGEST_BYTES),
            "states": self.states,
        }
        write_whole(path, save(arrays, metadata))

    @classmethod
    def load(cls, path: Path) -> CacheIndex:
        """Raises UserError where the file is damaged or of another version."""
        try:
            with safe_open(path, framework="numpy") as file:
                values = read_header(path, file.metadata())
                arrays = {name: file.get_tensor(name) for name in _COLUMNS}
            names: dict[str, int] = values["shards"]
            index = cls(
                list(names),
                list(names.values()),
                np.ascontiguousarray(arrays["keys"]).view(_KEY).reshape(-1),
                arrays["shards"],
                arrays["checksums"],
                np.ascontiguousarray(arrays["videos"]).view(_DIGEST).reshape(-1),
                arrays["states"],
                values["models"],
            )
        except (
            OSError,
            SafetensorError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            if isinstance(error, UserError):
                raise
            raise damaged(path, str(error)) from None
        if not len(index.keys) == len(index.shards) == len(index.checksums) or (
            len(index.shards) and not 0 <= index.shards.min() <= index.shards.max() < len(names)
        ):
            raise damaged(path, "its columns do not fit each other")
        return index


class CacheStore:
    """Encodings by key, read from the folder of a cache; none is written here.

    Picklable, and to be shared by processes: shards are opened where they are read.

    Raises UserError where the folder is no cache, or a file of it is damaged; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / SHARDS).is_dir():
            raise UserError(f"{folder}: no cache there, pipelines/cache.py makes one")
        self.folder = folder
        self.index = read_index(folder)
        self._files: OrderedDict[str, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def read(self, key: str) -> Tensor:
        """The entry of a key: a copy, of the shape and dtype it was made in.

        Raises UserError where there is none, or its shard is damaged.
        """
        row = int(self.index.rows([key])[0])
        if row < 0:
            raise UserError(
                f"{self.folder}: does not hold an encoding that is asked for; run "
                "pipelines/cache.py with the config and flags of this run"
            )
        name = self.index.names[int(self.index.shards[row])]
        path = self.folder / SHARDS / name
        try:
            # The file is mapped, at any address; a copy has torch's own alignment, and without
            # that the last bit of a sum may be rounded another way than from a fresh encoding.
            tensor: Tensor = self._file(name, path).get_tensor(key).clone()
        except (OSError, SafetensorError) as error:
            raise damaged(path, str(error)) from None
        if checksum(tensor) != int(self.index.checksums[row]):
            raise damaged(path, f"entry {key} is not what was written")
        return tensor

    def _file(self, name: str, path: Path) -> Any:
        if name not in self._files:
            self._files[name] = safe_open(path, framework="pt")
            if len(self._files) > _OPEN_SHARDS:
                self._files.popitem(last=False)
        self._files.move_to_end(name)
        return self._files[name]


def read_index(folder: Path) -> CacheIndex:
    """What the shards in a cache's folder hold.

    Entries of shards that are gone are left out. Raises UserError where a file is damaged.
    """
    path = folder / INDEX
    index = CacheIndex.load(path) if path.exists() else CacheIndex.empty()
    found = {entry.name: entry for entry in os.scandir(folder / SHARDS) if _is_shard(entry.name)}
    for name, size in zip(index.names, index.sizes, strict=True):
        if name in found and found[name].stat().st_size != size:
            problem = f"{found[name].stat().st_size} bytes instead of {size}"
            raise damaged(folder / SHARDS / name, problem)
    known = set(index.names)
    further = [read_info(folder / SHARDS / name) for name in sorted(found.keys() - known)]
    return index.without(known - found.keys()).extended(further)


def _is_shard(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _sorted_columns(by: str, **columns: NDArray[Any]) -> dict[str, Any]:
    """Columns in the order of one of them; of rows that are equal there, the first is kept."""
    rows = np.unique(columns[by], return_index=True)[1]
    return {name: column[rows] for name, column in columns.items()}


def _find(table: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Row of each wanted value in a sorted table, -1 where it is not there."""
    if not len(table):
        return np.full(len(wanted), -1, dtype=np.int64)
    rows = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return np.where(table[rows] == wanted, rows, -1)
