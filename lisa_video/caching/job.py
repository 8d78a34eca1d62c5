"""Encode what a training run reads, shard by shard, into the folder of a cache.

The work is a list of jobs, each of which makes one shard whole or not at all. A repeated run makes
only what is not there, so it goes on where another was killed, and encodes anew what has changed.

Shapes: F frames, T latent frames, C latent channels, h w latent cells, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from lisa_video.backbones.base import VideoBackbone
from lisa_video.caching.config import CacheConfig
from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.plan import (
    Plan,
    PlannedView,
    check_content,
    check_unchanged,
    make_plan,
    video_key,
)
from lisa_video.caching.shards import FileState, ShardInfo, write_shard
from lisa_video.caching.store import INDEX, SHARDS, read_index
from lisa_video.clip_reader import ClipReader
from lisa_video.dataset import pixel_values
from lisa_video.engines import LostJob, map_jobs
from lisa_video.errors import UserError
from lisa_video.locking import only_writer
from lisa_video.training.config import BackboneConfig, Precision, TrainConfig
from lisa_video.training.setup import DTYPES, check_precision, open_backbone
from lisa_video.training.sources import open_readings

Item = TypeVar("Item")


@dataclass(frozen=True)
class EncodeJob:
    """One shard to make: of views, or of captions, by key."""

    backbone: BackboneConfig
    precision: Precision
    keys: EncoderKeys
    """What the backbone's encoders must be."""
    root: Path
    """Folder of the dataset."""
    folder: Path
    """Where the shard goes."""
    views: tuple[tuple[str, PlannedView], ...] = ()
    captions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CacheReport:
    """What a run found and did; counts of entries."""

    views: int
    captions: int
    """Both: that a training reads."""
    encoded: int
    """Of these two together, in this run."""


def check(config: CacheConfig) -> None:
    """Raises UserError for what is wrong before anything is encoded; writes nothing."""
    check_precision(config)
    _check_folder(_folder(config))
    backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision])
    for reading in open_readings(config, backbone):
        reading.clips.check()


def run(config: CacheConfig) -> CacheReport:
    """Bring the cache up to date, and say what was done.

    Raises UserError where a clip cannot be read or is not what the manifest says, where another run
    writes here, or where the disk is full. Shards finished before are kept.
    """
    folder = _folder(config)
    _check_folder(folder)
    _make_folder(folder / SHARDS)
    with only_writer(folder):
        for left_behind in (folder / SHARDS).glob(".*.tmp"):
            left_behind.unlink(missing_ok=True)
        index = read_index(folder)
        # Now, so that what a killed run left behind is read once.
        index.save(folder / INDEX)
        _encoders.cache_clear()
        backbone, keys = _encoders(config.backbone, config.mixed_precision)
        plan = make_plan(open_readings(config, backbone), keys)
        root = config.data.root
        states = check_unchanged(root, plan.entries, index, unknown=False)
        missing = set(index.missing([*plan.views, *plan.captions]))
        made = list(_encode(list(_jobs(config, keys, plan, missing)), config))
        index = index.extended(made).with_states(states)
        # Of equal videos only one was read so far.
        states = check_unchanged(root, plan.entries, index, unknown=True)
        index.with_states(states).save(folder / INDEX)
    report = CacheReport(
        len(plan.views), len(plan.captions), sum(len(info.checksums) for info in made)
    )
    print(
        f"{folder}: latents of {report.views} views and text states of {report.captions} captions; "
        f"{report.encoded} of them encoded now"
    )
    return report


def encode_shard(job: EncodeJob) -> ShardInfo:
    """Make one shard; safe to repeat.

    Raises UserError where a video cannot be read, or is not the one that the manifest names.
    """
    encoders, keys = _encoders(job.backbone, job.precision)
    if keys != job.keys:
        raise UserError(f"{job.backbone.path}: has changed since this run began; start it again")
    videos: dict[str, FileState] = {}
    tensors: dict[str, Tensor] = {}
    reader = ClipReader(job.root, keep=False, one_cut=True)
    for key, planned in job.views:
        entry = planned.entry
        if video_key(entry) not in videos:
            # The state from before the content is read: a later change is then seen as one.
            state = FileState.of(job.root / entry.video)
            check_content(job.root, entry)
            reader.check(entry)
            videos[video_key(entry)] = state
        pixels = pixel_values(reader.seen_pixels(entry, planned.view)[None])
        tensors[key] = encoders.encode_video(pixels)[0]
    for key, caption in job.captions:
        tensors[key] = encoders.encode_text([caption])[0]
    return write_shard(job.folder, tensors, videos, [job.keys.vae, job.keys.text])


@lru_cache(maxsize=1)
def _encoders(settings: BackboneConfig, precision: Precision) -> tuple[VideoBackbone, EncoderKeys]:
    """A process's backbone, with its encoders on the GPU where there is one."""
    backbone = open_backbone(settings, DTYPES[precision])
    keys = EncoderKeys.of(backbone)
    if torch.cuda.is_available():
        for module in (backbone.vae, backbone.text_encoder):
            module.to("cuda")
    return backbone, keys


def _jobs(
    config: CacheConfig, keys: EncoderKeys, plan: Plan, missing: set[str]
) -> Iterator[EncodeJob]:
    common = (
        config.backbone,
        config.mixed_precision,
        keys,
        config.data.root.absolute(),
        (_folder(config) / SHARDS).absolute(),
    )
    views = [item for item in plan.views.items() if item[0] in missing]
    captions = [item for item in plan.captions.items() if item[0] in missing]
    for some in _groups(views, config.shard_clips):
        yield EncodeJob(*common, views=tuple(some))
    for texts in _groups(captions, config.shard_clips):
        yield EncodeJob(*common, captions=tuple(texts))


def _encode(jobs: Sequence[EncodeJob], config: CacheConfig) -> Iterator[ShardInfo]:
    if config.engine == "local" and config.encoders == 1:
        # Here, where the backbone is loaded already.
        yield from map(encode_shard, tqdm(jobs, desc="encode shards", unit="shard", disable=None))
        return
    _encoders.cache_clear()
    for made in map_jobs(
        encode_shard,
        jobs,
        engine=config.engine,
        workers=config.encoders,
        desc="encode shards",
        gpus=config.gpus,
    ):
        if isinstance(made, LostJob):
            ids = [planned.entry.id for _, planned in made.item.views]
            raise UserError(f"clips {', '.join(ids) or 'without views'}: {made.reason}")
        yield made


def _groups(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _folder(config: TrainConfig) -> Path:
    assert config.data.cache is not None
    return config.data.cache


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"data.cache={folder}: is a file; give the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SHARDS).is_dir():
        raise UserError(f"data.cache={folder}: holds files that are no cache; give another folder")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder: {error.strerror}") from None
