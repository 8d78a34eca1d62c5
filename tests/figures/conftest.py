from pathlib import Path

import pytest

from lisa_video.assets import fetch_asset


@pytest.fixture(scope="session")
def motion_folder() -> Path:
    return fetch_asset("motions")
