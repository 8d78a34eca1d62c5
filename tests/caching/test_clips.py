"""Training from a cache is training from the videos, to the last bit."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.caching import job
from lisa_video.caching.config import CacheConfig
from lisa_video.encoders import FrozenEncoder
from lisa_video.errors import UserError
from lisa_video.training.config import TrainConfig
from lisa_video.training.loop import train
from lisa_video.training.setup import check_training
from lisa_video.training.state import TrainState
from tests.caching.conftest import cache_config
from tests.tiny_wan import tiny_wan_checkpoint
from tests.training.runs import untimed_log

EVERYTHING = AugmentationConfig(
    flip=0.5, crop_scale=(0.6, 1.0), crop_shift=1.0, joint_dropout=0.2, frame_dropout=0.1
)


def settings(config: CacheConfig, **changes: Any) -> TrainConfig:
    """Those of a training, without those of the caching job."""
    values = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
    return TrainConfig(**(values | changes))


def without_cache(config: TrainConfig, output: Path) -> TrainConfig:
    return replace(config, data=replace(config.data, cache=None), output=output)


def no_video(*_: object, **__: object) -> None:
    pytest.fail("a video was opened")


def no_encoder(*_: object) -> None:
    pytest.fail("an encoder was loaded")


def assert_same_run(first: TrainState, second: TrainState, logs: list[Path]) -> None:
    rows = [untimed_log(log) for log in logs]
    assert rows[0] == rows[1] and len(rows[0]) > 4
    for name in ("side_network", "average", "decoder"):
        one: nn.Module = getattr(first.networks, name)
        other: nn.Module = getattr(second.networks, name)
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("augmentation", "changes"),
    [
        (AugmentationConfig(), {"data__views": 1}),
        (EVERYTHING, {"data__views": 3, "data__max_stride": 2, "data__workers": 1}),
        (EVERYTHING, {"mixed_precision": "bf16", "data__buckets": [(4, 16, 16), (6, 8, 16)]}),
    ],
)
def test_training_from_a_cache_is_training_from_video(
    clips: Path,
    tmp_path: Path,
    checkpoint: Path,
    augmentation: AugmentationConfig,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = cache_config(
        clips,
        tmp_path,
        checkpoint,
        data__cache_in_memory=False,
        data__augmentation=augmentation,
        **changes,
    )
    job.run(config)
    from_cache = settings(config)
    from_video = without_cache(from_cache, tmp_path / "from_video")
    AcceleratorState._reset_state(reset_partial_state=True)
    first = train(from_video)
    for name in ("read_video", "probe_video"):
        monkeypatch.setattr(f"lisa_video.clip_reader.{name}", no_video)
    monkeypatch.setattr(FrozenEncoder, "model", no_encoder)
    check_training(from_cache)
    second = train(from_cache)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_same_run(first, second, [from_video.output, from_cache.output])


def test_wan_trains_from_a_cache(clips: Path, tmp_path: Path) -> None:
    config = cache_config(
        clips,
        tmp_path,
        tiny_wan_checkpoint(tmp_path / "wan"),
        backbone__kind="wan",
        data__frames=5,
        alignment__tap="block_0",
        steps=5,
    )
    job.run(config)
    from_cache = settings(config)
    from_video = without_cache(from_cache, tmp_path / "from_video")
    first, second = train(from_video), train(from_cache)
    assert_same_run(first, second, [from_video.output, from_cache.output])


def test_a_run_may_go_on_with_a_cache(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = cache_config(clips, tmp_path, checkpoint, steps=4, probe__every=0)
    job.run(config)
    whole = train(settings(config))
    train(without_cache(settings(config, steps=2), tmp_path / "part"))
    part = train(settings(config, output=tmp_path / "part"))
    torch.testing.assert_close(
        whole.networks.side_network.state_dict(),
        part.networks.side_network.state_dict(),
        rtol=0,
        atol=0,
    )


def test_damage_stops_a_run_with_the_name_of_the_shard(
    clips: Path, tmp_path: Path, checkpoint: Path
) -> None:
    config = cache_config(clips, tmp_path, checkpoint, probe__every=0, text_dropout=0.0)
    job.run(config)
    for path in (tmp_path / "cache" / "shards").iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"shards/\w+\.safetensors: damaged"):
        train(settings(config))


def test_no_cache_no_training(clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    config = settings(cache_config(clips, tmp_path, checkpoint))
    with pytest.raises(UserError, match=r"cache: no cache there, pipelines/cache\.py makes one"):
        check_training(config)
