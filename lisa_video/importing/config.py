"""Settings of the job that imports a public set of videos. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.errors import UserError
from lisa_video.extraction_config import ExtractPosesConfig


@dataclass(frozen=True)
class ImportDataConfig(ExtractPosesConfig):
    """Turn a public set of videos into a dataset; what is not said here is as in extract_poses."""

    layout: Literal["tiktok", "ubc_fashion", "humanvid"] = field(kw_only=True)
    """How its folders are laid out, see data/README.md."""
    image_fps: float = 30.0
    """Frames per second of clips that come as folders of images."""
    train_list: Path | None = None
    """Text file that names the videos of the split "train", one a line, by name, path or address;
    without it and test_list a folder train or test in the path of a video tells its split."""
    test_list: Path | None = None
    """The same for the split "test"."""
    captions: Path | None = None
    """Captions by the names of the videos: a folder of NAME.txt, or a .json object of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.image_fps <= 1000:
            raise UserError(f"image_fps={self.image_fps}: must be above 0")
        if (self.train_list is None) != (self.test_list is None):
            raise UserError("give both train_list and test_list, or neither")
        if self.preview is not None:
            raise UserError(f"preview={self.preview}: is for a single video, not for a set")
