"""Where the clips of a run come from: files, a cache of encodings beside them, or packed shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lisa_video.backbones.base import VideoBackbone
from lisa_video.buckets import Bucket
from lisa_video.caching.clips import CacheReader, EncodedClips, TrainingClips
from lisa_video.caching.keys import EncoderKeys
from lisa_video.caching.plan import Reading, check_unchanged, make_plan
from lisa_video.caching.store import CacheStore
from lisa_video.conditions import reads_video
from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.manifest import MANIFEST
from lisa_video.packing.clips import PackedClips
from lisa_video.packing.encodings import PackedEncodings
from lisa_video.training.batches import BatchStream
from lisa_video.training.config import TrainConfig
from lisa_video.training.shard_batches import ShardBatchStream


@dataclass(frozen=True)
class Sources:
    """The clips that a run reads."""

    training: TrainingClips
    probe: TrainingClips | None
    """Those of the probe are the first of these; None where nothing is probed."""
    readings: tuple[Reading, ...]
    """What is read of them; without an end where each epoch has views of its own."""
    packed: PackedClips | None
    """Where they lie, if that is no folder."""
    check_clips: bool

    @property
    def encoded(self) -> bool:
        """Whether VAE and text encoder have nothing to do."""
        return isinstance(self.training, EncodedClips)

    def check(self) -> None:
        """Open what is going to be read, but decode nothing.

        Raises UserError where a file cannot be read, does not fit the manifest, or has changed
        since, and where a cache or a packed set does not hold all that the run reads.
        """
        if self.packed is not None:
            self.packed.packed.check_shards()
        elif self.check_clips:
            for reading in self.readings:
                if self.encoded:
                    reading.clips.check_poses()
                else:
                    reading.clips.check()
        if isinstance(self.training, EncodedClips):
            encodings = self.training.encodings
            if isinstance(encodings, CacheReader):
                check_cache(encodings.store, self.training.keys, self.readings)
            elif self.check_clips:
                for source, reading in zip(
                    (self.training, self.probe), self.readings, strict=False
                ):
                    assert isinstance(source, EncodedClips)
                    check_packed(source, reading)

    def stream(self, config: TrainConfig, *, process: int, processes: int) -> BatchStream:
        """What one process of the run reads; UserError where shards are fewer than processes."""
        if self.packed is None:
            return BatchStream(self.training, config, process=process, processes=processes)
        shards = self.packed.shards(self.readings[0].clips)
        return ShardBatchStream(self.training, config, shards, process=process, processes=processes)


def open_sources(config: TrainConfig, backbone: VideoBackbone) -> Sources:
    """The clips of a run, as its settings say.

    Raises UserError as `open_dataset`, and where data.cache is no cache or data.shards no packed set.
    """
    data = config.data
    packed = None if data.shards is None else PackedClips.open(data.shards)
    readings = open_readings(config, backbone, packed)
    sources: list[TrainingClips] = [reading.clips for reading in readings]
    if packed is not None and packed.packed.index.kind == "encodings":
        if reads_video(data.condition):
            raise UserError(
                f"data.condition={data.condition}: is drawn from the videos, and "
                f"data.shards={data.shards} holds encodings alone; pack the videos"
            )
        if not data.views:
            raise UserError(
                f"data.shards={data.shards}: holds the encodings of fixed views; set data.views to "
                "what it was when they were packed"
            )
        keys = EncoderKeys.of(backbone)
        sources = [
            EncodedClips(clips, PackedEncodings(packed.packed, packed.rows(clips), keys), keys)
            for clips in (reading.clips for reading in readings)
        ]
    if data.cache is not None:
        keys, stored = EncoderKeys.of(backbone), CacheReader(CacheStore(data.cache))
        sources = [EncodedClips(reading.clips, stored, keys) for reading in readings]
    probe = sources[1] if len(sources) > 1 else None
    return Sources(sources[0], probe, tuple(readings), packed, data.check_clips)


def check_packed(clips: EncodedClips, reading: Reading) -> None:
    """UserError where a packed set does not hold the latents of a view that is read."""
    encodings = clips.encodings
    assert isinstance(encodings, PackedEncodings)
    for index, planned in enumerate(reading.by_clip()):
        for each in planned:
            encodings.require(index, clips.keys.latents(each.entry.sha256, each.view))


def check_cache(store: CacheStore, keys: EncoderKeys, readings: Sequence[Reading]) -> None:
    """UserError where the cache misses an encoding that is read, or a video has changed."""
    plan = make_plan(readings, keys)
    missing = set(store.index.missing([*plan.views, *plan.captions]))
    if missing:
        first = next((view.entry.id for key, view in plan.views.items() if key in missing), None)
        which = f"the first is of clip '{first}'" if first else "all are text states of captions"
        raise UserError(
            f"data.cache={store.folder}: {len(missing)} of {len(plan.views) + len(plan.captions)} "
            f"encodings that this run reads are not there, {which}; {_why(store, keys)}: run "
            "pipelines/cache.py with the config and flags of this run"
        )
    check_unchanged(readings[0].clips.root, plan.entries, store.index, unknown=True)


def _why(store: CacheStore, keys: EncoderKeys) -> str:
    if keys.vae not in store.index.models:
        return "those that are there were made by other encoders than this backbone's"
    return "videos, captions or settings under data and seed have changed, or it is not finished"


def open_readings(
    config: TrainConfig, backbone: VideoBackbone, packed: PackedClips | None = None
) -> list[Reading]:
    """What a run reads: of the training clips all views that come back, of the probe's one each."""
    unset = config.data.root == Path() and not (config.data.root / MANIFEST).is_file()
    if packed is None and unset:
        raise UserError("data.root is not set: name the folder of the dataset, or data.shards")
    training = open_dataset(config, backbone, config.data.split, packed)
    readings = [Reading(training, len(training), config.data.views)]
    if config.probe.every:
        probe = open_probe_dataset(config, backbone, packed)
        readings.append(Reading(probe, min(config.probe.clips, len(probe)), 1))
    return readings


def open_dataset(
    config: TrainConfig, backbone: VideoBackbone, split: str, packed: PackedClips | None = None
) -> ClipDataset:
    """The clips of a split, as `backbone` can take them.

    Those of the training split have the run's seed, buckets, strides and augmentation; all others
    are windows of one shape, with the probe's seed.
    """
    data = config.data
    if split != data.split:
        return _held_out(config, backbone, split, config.probe.seed, packed)
    for place, (frames, *size) in enumerate(data.buckets):
        key = f"data.buckets[{place}]"
        backbone.check_frames(frames, key)
        backbone.check_size((size[0], size[1]), key)
    _check_shape(config, backbone)
    return ClipDataset(
        data.root if packed is None else packed.root,
        split,
        frames=data.frames,
        stride=data.stride,
        size=data.size,
        seed=config.seed,
        cache_in_memory=data.cache_in_memory,
        max_stride=data.max_stride,
        fps=data.fps,
        buckets=[Bucket(frames, (width, height)) for frames, width, height in data.buckets],
        views=data.views,
        augmentation=data.augmentation,
        packed=packed,
        condition=data.condition,
    )


def open_probe_dataset(
    config: TrainConfig, backbone: VideoBackbone, packed: PackedClips | None = None
) -> ClipDataset:
    """The clips that the probe looks at are the first of these."""
    clips = open_held_out(config, backbone, packed)
    if len(clips) < 2:
        raise UserError(
            f"data.validation_split={clips.split}: the probe shuffles poses among clips and needs 2, "
            f"{config.data.root} has {len(clips)}; add clips, or set probe.every to 0"
        )
    return clips


def open_held_out(
    config: TrainConfig, backbone: VideoBackbone, packed: PackedClips | None = None
) -> ClipDataset:
    """The clips of the validation split, in the windows that probe and validation see."""
    split = config.data.validation_split
    # Where the probe looks at training clips, it sees the windows that it always saw.
    seed = config.seed if split == config.data.split else config.probe.seed
    return _held_out(config, backbone, split, seed, packed)


def _held_out(
    config: TrainConfig,
    backbone: VideoBackbone,
    split: str,
    seed: int,
    packed: PackedClips | None,
) -> ClipDataset:
    data = config.data
    _check_shape(config, backbone)
    return ClipDataset(
        data.root if packed is None else packed.root,
        split,
        frames=data.frames,
        stride=data.stride,
        size=data.size,
        seed=seed,
        cache_in_memory=data.cache_in_memory,
        fps=data.fps,
        packed=packed,
        condition=data.condition,
    )


def _check_shape(config: TrainConfig, backbone: VideoBackbone) -> None:
    backbone.check_frames(config.data.frames, "data.frames")
    backbone.check_size(config.data.size, "data.size")
