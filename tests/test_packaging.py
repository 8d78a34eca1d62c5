"""The built wheel holds the library and nothing else of this repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lisa_video import __version__

ROOT = Path(__file__).parents[1]
METADATA = f"lisa_video-{__version__}.dist-info"
NOT_SOURCES = {".git", ".venv", "build", "dist", "outputs"}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Built from links to this checkout, so that the build's own files stay out of it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for entry in ROOT.iterdir():
        if entry.name not in NOT_SOURCES and entry.suffix != ".egg-info":
            (source / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", output, source], check=True, capture_output=True)
    (wheel,) = output.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_only_the_library(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert tops == {"lisa_video", METADATA}


def test_wheel_holds_every_module(wheel_names: set[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("lisa_video/**/*.py")}
    assert modules == {name for name in wheel_names if name.endswith(".py")}
    assert "lisa_video/py.typed" in wheel_names


def test_wheel_carries_its_licence(wheel_names: set[str]) -> None:
    assert f"{METADATA}/licenses/LICENSE" in wheel_names
