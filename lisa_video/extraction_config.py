"""Settings of the job that finds poses in a video. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from lisa_video.errors import UserError


@dataclass(frozen=True)
class ExtractPosesConfig:
    """Find the poses in one video."""

    video: Path
    """Video to look at."""
    output: Path
    """Pose file to write (.npz); must not exist."""
    detector: str = "blazepose"
    """Pose detector; an unknown name lists the known ones."""
    weights: Path | None = None
    """Folder with the detector's weights; null takes the shipped ones, or fetches them once."""
    preview: Path | None = None
    """Video to write of the source beside the drawn skeletons (.mp4); must not exist."""

    def __post_init__(self) -> None:
        if self.output.suffix != ".npz":
            raise UserError(f"output={self.output}: a pose file ends in .npz")
        if self.preview is not None and self.preview.suffix != ".mp4":
            raise UserError(f"preview={self.preview}: the preview ends in .mp4")
