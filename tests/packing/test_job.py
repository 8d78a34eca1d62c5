"""Packing: what training reads of shards is what it reads of the dataset or the cache."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from lisa_video.backbones.base import VideoBackbone
from lisa_video.caching import job as caching
from lisa_video.caching.clips import EncodedClip
from lisa_video.caching.config import CacheConfig
from lisa_video.caching.keys import EncoderKeys
from lisa_video.dataset import Clip
from lisa_video.errors import UserError
from lisa_video.packing import job
from lisa_video.packing.config import PackConfig
from lisa_video.packing.encodings import PackedEncodings
from lisa_video.packing.packed_set import INDEX, PackedSet
from lisa_video.training.config import TrainConfig
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.setup import check_training, open_backbone
from lisa_video.training.sources import Sources, open_sources
from tests.caching.conftest import cache_config, checkpoint, clips

__all__ = ["checkpoint", "clips"]


def settings(config: TrainConfig, **changes: Any) -> dict[str, Any]:
    """Of a training, without those of the caching job."""
    values = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
    return values | changes


def packing(config: CacheConfig, target: str | Path, **changes: Any) -> PackConfig:
    own = {"pack_to": str(target), "clips_per_shard": 2}
    return PackConfig(**(settings(config) | own | changes))


def from_shards(config: CacheConfig, target: str | Path, **changes: Any) -> TrainConfig:
    data = replace(config.data, cache=None, root=Path(), shards=str(target), **changes)
    return TrainConfig(**settings(config, data=data))


def opened(config: TrainConfig) -> tuple[Sources, VideoBackbone]:
    backbone = open_backbone(config.backbone)
    sources = open_sources(config, backbone)
    sources.check()
    return sources, backbone


def by_id(sources: Sources) -> dict[str, int]:
    clips = sources.readings[0].clips
    return {clips.entries[index].id: index for index in range(len(clips))}


def target_of(kind: str, folder: Path) -> str:
    return {
        "folder": str(folder / "packed"),
        "file": f"file://{folder}/packed",
        "memory": f"memory://{folder.name}",
    }[kind]


@pytest.mark.parametrize("kind", ["folder", "file", "memory"])
def test_videos_from_shards_are_those_of_the_dataset(
    clips: Path, tmp_path: Path, checkpoint: Path, kind: str
) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    target, data = target_of(kind, tmp_path), replace(config.data, cache=None)
    index = job.run(packing(config, target, data=data))
    assert index.kind == "clips" and len(index.names) == 3 + 2
    packed, backbone = opened(from_shards(config, target))
    plain = open_sources(TrainConfig(**settings(config, data=data)), backbone)
    assert by_id(packed).keys() == by_id(plain).keys()
    for id, place in by_id(plain).items():
        for epoch in (0, 1):
            one, other = (
                plain.training.clip(place, epoch),
                packed.training.clip(by_id(packed)[id], epoch),
            )
            assert isinstance(one, Clip) and isinstance(other, Clip)
            assert (one.id, one.caption, one.start) == (other.id, other.caption, other.start)
            np.testing.assert_array_equal(one.pixels, other.pixels)
            np.testing.assert_array_equal(one.pose_frames, other.pose_frames)
    assert plain.probe is not None and packed.probe is not None
    assert [plain.probe.clip(place, 0).id for place in range(3)] == [  # type: ignore[union-attr]
        packed.probe.clip(place, 0).id
        for place in range(3)  # type: ignore[union-attr]
    ]


@pytest.fixture
def packed_encodings(clips: Path, tmp_path: Path, checkpoint: Path) -> tuple[CacheConfig, Path]:
    config = cache_config(clips, tmp_path, checkpoint)
    caching.run(config)
    job.run(packing(config, tmp_path / "packed"))
    return config, tmp_path / "packed"


def test_encodings_from_shards_are_those_of_the_cache(
    packed_encodings: tuple[CacheConfig, Path],
) -> None:
    config, target = packed_encodings
    packed, backbone = opened(from_shards(config, target))
    cached = open_sources(TrainConfig(**settings(config)), backbone)
    for sources in (packed, cached):
        assert sources.probe is not None
    for id, place in by_id(cached).items():
        for epoch in (0, 1, 4):
            one, other = (
                cached.training.clip(place, epoch),
                packed.training.clip(by_id(packed)[id], epoch),
            )
            assert isinstance(one, EncodedClip) and isinstance(other, EncodedClip)
            assert one.condition.id == other.condition.id == id
            for name in ("latents", "states", "empty_states"):
                assert torch.equal(getattr(one, name), getattr(other, name))
            np.testing.assert_array_equal(one.condition.pose_frames, other.condition.pose_frames)


def test_training_from_shards_resumes_bit_for_bit(
    packed_encodings: tuple[CacheConfig, Path], clips: Path, tmp_path: Path
) -> None:
    """Nothing of the dataset and the cache is needed, and reading processes change nothing."""
    config, target = packed_encodings
    clips.rename(tmp_path / "elsewhere")
    (tmp_path / "cache").rename(tmp_path / "cache_elsewhere")
    whole = from_shards(config, target)
    check_training(whole)
    first = train(whole)
    part = replace(from_shards(config, target, workers=2), output=tmp_path / "part")
    train(replace(part, steps=2))
    second = train(part)
    torch.testing.assert_close(
        first.networks.side_network.state_dict(),
        second.networks.side_network.state_dict(),
        rtol=0,
        atol=0,
    )
    assert [row["step"] for row in read_log(part.output)] == list(range(7))


def test_shards_are_a_webdataset(packed_encodings: tuple[CacheConfig, Path]) -> None:
    _, target = packed_encodings
    shards = sorted(str(path) for path in target.glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    manifest = [json.loads(line) for line in (target / "manifest.jsonl").read_text().splitlines()]
    assert [json.loads(sample["json"]) for sample in samples] == manifest[1:]
    assert [sorted(key for key in sample if key[0] != "_") for sample in samples] == [
        ["0.safetensors", "1.safetensors", "json", "npz"]
        if index < 5
        else ["0.safetensors", "json", "npz"]
        for index in range(8)
    ]


def test_other_settings_are_refused(
    packed_encodings: tuple[CacheConfig, Path], tmp_path: Path
) -> None:
    config, target = packed_encodings
    with pytest.raises(UserError, match="packed with other settings or captions"):
        opened(from_shards(config, target, size=(8, 8)))
    with pytest.raises(UserError, match=r"fixed views; set data\.views"):
        opened(from_shards(config, target, views=0))
    with pytest.raises(UserError, match="encodings by another VAE or text encoder"):
        PackedEncodings(PackedSet(str(target)), np.arange(8), EncoderKeys("one", "other"))
    with pytest.raises(UserError, match="no packed set there"):
        opened(from_shards(config, tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"data\.root is not set"):
        opened(TrainConfig(**settings(config, data=replace(config.data, cache=None, root=Path()))))


def test_settings_that_cannot_be_packed_are_refused(tmp_path: Path) -> None:
    config = cache_config(tmp_path, tmp_path, tmp_path)
    with pytest.raises(UserError, match="pack_to is not set"):
        packing(config, "")
    with pytest.raises(UserError, match=r"data\.validation_split=train: that is the split"):
        packing(config, "x", data=replace(config.data, validation_split="train"))
    with pytest.raises(UserError, match="packed already is not packed again"):
        packing(config, "x", data=replace(config.data, cache=None, shards="y"))
    with pytest.raises(UserError, match="clips_per_shard=0: must be at least 1"):
        packing(config, "x", clips_per_shard=0)


def test_a_set_is_never_written_over(
    packed_encodings: tuple[CacheConfig, Path], tmp_path: Path
) -> None:
    config, target = packed_encodings
    with pytest.raises(UserError, match="holds a packed set already"):
        job.run(packing(config, target))
    with pytest.raises(UserError, match=r"no packed set \(run\)|no packed set \(cache\)"):
        job.run(packing(config, tmp_path))


def test_an_interrupted_packing_is_done_again(
    clips: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cache_config(clips, tmp_path, checkpoint)
    plain = packing(config, tmp_path / "packed", data=replace(config.data, cache=None))
    index = job.run(replace(plain, pack_to=str(tmp_path / "whole")))

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(plain)
    assert not (tmp_path / "packed" / INDEX).exists()
    monkeypatch.undo()
    assert job.run(plain).sizes == index.sizes
    for name in (INDEX, "manifest.jsonl", *index.names):
        contents = {(tmp_path / each / name).read_bytes() for each in ("packed", "whole")}
        assert len(contents) == 1


@pytest.mark.parametrize("missing", ["cut", "gone"])
def test_a_damaged_shard_is_named_before_the_first_step(
    packed_encodings: tuple[CacheConfig, Path], missing: str
) -> None:
    config, target = packed_encodings
    shard = target / "clips-00001.tar"
    if missing == "cut":
        os.truncate(shard, shard.stat().st_size - 512)
    else:
        shard.unlink()
    with pytest.raises(UserError, match=rf"{shard}: .*(cut short|missing)"):
        check_training(from_shards(config, target))
