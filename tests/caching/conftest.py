"""A tiny dataset, a tiny checkpoint and the settings of a run that reads a cache."""

from pathlib import Path
from typing import Any

import pytest

from lisa_video.caching.config import CacheConfig
from tests.tiny import tiny_checkpoint
from tests.training.runs import tiny_config, write_clips


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A set of its own for each test, to change."""
    return write_clips(tmp_path / "clips", train=5, validation=3, length=8)


def cache_config(clips: Path, folder: Path, checkpoint: Path, **changes: Any) -> CacheConfig:
    """Two windows of each training clip, into `folder / "cache"`."""
    settings = {"data__views": 2, "data__cache": folder / "cache", "shard_clips": 4} | changes
    own = {
        key: settings.pop(key)
        for key in ("engine", "encoders", "gpus", "shard_clips")
        if key in settings
    }
    config = tiny_config(clips, folder / "run", str(checkpoint), **settings)
    return CacheConfig(**vars(config), **own)
