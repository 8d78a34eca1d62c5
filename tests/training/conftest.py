"""A dataset and an encoder for all training tests: both are read only."""

from pathlib import Path

import pytest

from lisa_video.training.encoding import ClipEncoder
from tests.tiny import tiny_backbone
from tests.training.runs import write_clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def encoder() -> ClipEncoder:
    return ClipEncoder(tiny_backbone(), cache=True)
