"""The dataset that the tests of validation spoil."""

import shutil
from pathlib import Path

import pytest

from .sets import make_set


@pytest.fixture(scope="session")
def sound_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips to train on and two for validation."""
    return make_set(tmp_path_factory.mktemp("sound") / "set")


@pytest.fixture
def root(sound_set: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(sound_set, tmp_path / "set")
