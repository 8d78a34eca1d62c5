"""Pack what a training reads into tar shards: videos or encodings, with poses and captions.

The work is a list of jobs, each of which makes one shard and may be repeated; the index is written
when all are there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import save
from tqdm import tqdm

from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.plan import Reading, check_content
from lisa_video.caching.store import CacheStore
from lisa_video.engines import LostJob, map_jobs
from lisa_video.errors import UserError
from lisa_video.locking import only_writer
from lisa_video.manifest import MANIFEST, ManifestEntry, write_manifest
from lisa_video.packing.archive import PartRange, ShardWriter, json_line
from lisa_video.packing.config import PackConfig
from lisa_video.packing.packed_set import INDEX, KEY_BYTES, PackedIndex
from lisa_video.packing.storage import Storage
from lisa_video.training.setup import DTYPES, open_backbone
from lisa_video.training.sources import open_readings, open_sources


@dataclass(frozen=True)
class PackedClip:
    """A clip on its way into a shard."""

    number: int
    """Its place in the packed manifest."""
    entry: ManifestEntry
    """As the dataset has it."""
    encodings: tuple[tuple[str, str], ...]
    """Keys of latents and of text states of each view; none where its video is packed."""


@dataclass(frozen=True)
class PackJob:
    """One shard to make."""

    name: str
    url: str
    root: Path
    """Folder of the dataset."""
    cache: Path | None
    clips: tuple[PackedClip, ...]


@dataclass(frozen=True)
class PackedShard:
    """Where the clips of a shard lie."""

    name: str
    size: int
    """Bytes."""
    parts: dict[int, tuple[PartRange, ...]]
    """Of each clip, by its number."""


def check(config: PackConfig) -> None:
    """Raises UserError for what is wrong before anything is packed; writes nothing."""
    _check_target(Storage(config.pack_to))
    open_sources(
        config, open_backbone(config.backbone, DTYPES[config.mixed_precision], encoders_later=True)
    ).check()


def run(config: PackConfig) -> PackedIndex:
    """Pack the set, and return its index.

    Raises UserError where a clip cannot be read or is not what the manifest says, where the cache
    misses an encoding, or where the target cannot be written.
    """
    storage = Storage(config.pack_to)
    _check_target(storage)
    backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision], encoders_later=True)
    keys = None if config.data.cache is None else EncoderKeys.of(backbone)
    readings = open_readings(config, backbone)
    clips = [_clips(reading, keys) for reading in readings]
    # Neighbours in a dataset are often alike, and training sees those of a shard together. The
    # probe looks at the first clips of its split, which stay that.
    order = np.random.default_rng(config.seed).permutation(len(clips[0]))
    clips[0] = [clips[0][place] for place in order]
    with _only_packer(storage):
        made = list(_pack(_jobs(config, clips), config))
        packed = [clip for some in _numbered(clips) for clip in some]
        index = _index(config, packed, made, keys)
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(Path(folder), [_packed_entry(clip) for clip in packed])
            storage.put(Path(folder) / MANIFEST, MANIFEST)
            (Path(folder) / INDEX).write_bytes(index.to_bytes())
            storage.put(Path(folder) / INDEX, INDEX)
    print(
        f"{config.pack_to}: {len(packed)} clips in {len(made)} shards, "
        f"{sum(index.sizes) / 2**20:.1f} MiB of {index.kind}"
    )
    return index


def pack_shard(job: PackJob) -> PackedShard:
    """Make one shard; safe to repeat. Raises UserError where a clip or an encoding is not right."""
    storage, parts = Storage(job.url), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / job.name
        try:
            with ShardWriter(path) as writer:
                for clip in job.clips:
                    parts[clip.number] = tuple(
                        writer.add(clip.number, part) for part in _parts(job, clip)
                    )
        except OSError as error:
            raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
        storage.put(path, job.name)
        return PackedShard(job.name, path.stat().st_size, parts)


def _parts(job: PackJob, clip: PackedClip) -> Iterator[dict[str, bytes]]:
    """The files of each part of a clip; see `archive`."""
    root, entry = job.root, clip.entry
    yield {
        "json": json_line(asdict(_packed_entry(clip))),
        "npz": _read_file(root / entry.poses),
    }
    if job.cache is None:
        check_content(root, entry)
        yield {"mp4": _read_file(root / entry.video)}
        return
    store = _store(job.cache)
    for number, keys in enumerate(clip.encodings):
        # One clip's captions may be one text: equal keys are one tensor.
        yield {f"{number}.safetensors": save({key: store.read(key) for key in keys})}


@lru_cache(maxsize=1)
def _store(folder: Path) -> CacheStore:
    return CacheStore(folder)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _packed_entry(clip: PackedClip) -> ManifestEntry:
    """Its files are those of the archive."""
    name = f"{clip.number:09d}"
    return replace(clip.entry, video=f"{name}.mp4", poses=f"{name}.npz")


def _clips(reading: Reading, keys: EncoderKeys | None) -> list[PackedClip]:
    """The clips that are read, not numbered yet."""
    if keys is None:
        entries = reading.clips.entries
        return [PackedClip(0, entries[index], ()) for index in range(len(entries))]
    found = []
    for planned in reading.by_clip():
        pairs = tuple(
            (keys.latents(each.entry.sha256, each.view), keys.states(each.caption))
            for each in planned
        )
        found.append(PackedClip(0, planned[0].entry, pairs))
    return found


def _numbered(splits: Sequence[Sequence[PackedClip]]) -> Iterator[list[PackedClip]]:
    first = 0
    for clips in splits:
        yield [replace(clip, number=first + place) for place, clip in enumerate(clips)]
        first += len(clips)


def _jobs(config: PackConfig, splits: Sequence[Sequence[PackedClip]]) -> list[PackJob]:
    """Shards of one split each."""
    size, root, cache = config.clips_per_shard, config.data.root.absolute(), config.data.cache
    groups = [
        clips[first : first + size]
        for clips in _numbered(splits)
        for first in range(0, len(clips), size)
    ]
    return [
        PackJob(
            f"clips-{number:05d}.tar",
            config.pack_to,
            root,
            None if cache is None else cache.absolute(),
            tuple(group),
        )
        for number, group in enumerate(groups)
    ]


def _pack(jobs: Sequence[PackJob], config: PackConfig) -> Iterator[PackedShard]:
    if config.engine == "local" and config.packers == 1:
        yield from map(pack_shard, tqdm(jobs, desc="pack shards", unit="shard", disable=None))
        return
    for made in map_jobs(
        pack_shard, jobs, engine=config.engine, workers=config.packers, desc="pack shards"
    ):
        if isinstance(made, LostJob):
            raise UserError(f"{made.item.name}: {made.reason}")
        yield made


def _index(
    config: PackConfig,
    clips: Sequence[PackedClip],
    made: Sequence[PackedShard],
    keys: EncoderKeys | None,
) -> PackedIndex:
    made = sorted(made, key=lambda shard: shard.name)
    count = 2 if keys is None else 1 + max(len(clip.encodings) for clip in clips)
    shards = np.zeros(len(clips), np.int32)
    bounds = np.zeros((len(clips), count + 1), np.int64)
    checksums = np.zeros((len(clips), count), np.int64)
    hashes = np.zeros((len(clips), 0 if keys is None else count - 1, KEY_BYTES), np.uint8)
    for place, shard in enumerate(made):
        for number, parts in shard.parts.items():
            shards[number] = place
            # Where other clips have more views, the parts that this one lacks are empty.
            bounds[number] = parts[-1].stop
            bounds[number, : len(parts)] = [part.start for part in parts]
            checksums[number, : len(parts)] = [part.checksum for part in parts]
    for clip in clips:
        for view, (latents, _) in enumerate(clip.encodings):
            hashes[clip.number, view] = np.frombuffer(bytes.fromhex(latents), np.uint8)
    empty = None
    if keys is not None and config.data.cache is not None:
        empty = _store(config.data.cache.absolute()).read(keys.states(""))
    return PackedIndex(
        kind="clips" if keys is None else "encodings",
        names=[shard.name for shard in made],
        sizes=[shard.size for shard in made],
        shards=shards,
        bounds=bounds,
        checksums=checksums,
        keys=hashes,
        models=[] if keys is None else [keys.vae, keys.text],
        empty_states=empty,
    )


def _check_target(storage: Storage) -> None:
    """What an interrupted run left, which holds shards and no index, is written over."""
    if storage.exists(INDEX):
        raise UserError(f"pack_to={storage.url}: holds a packed set already; give another")
    other = [name for name in storage.names() if not name.startswith((".", "clips-", MANIFEST))]
    if other:
        raise UserError(
            f"pack_to={storage.url}: holds files that are no packed set ({other[0]}); give another"
        )


@contextmanager
def _only_packer(storage: Storage) -> Iterator[None]:
    """Object storage knows no locks."""
    if storage.local is None:
        yield
        return
    storage.local.mkdir(parents=True, exist_ok=True)
    with only_writer(storage.local):
        yield
