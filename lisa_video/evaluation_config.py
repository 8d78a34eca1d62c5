"""Settings of the evaluation job."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvaluateConfig:
    """Score generated clips against the poses asked for."""

    videos: Path
    """Folder of generated clips: videos, folders of images, or .npy of uint8 (frames, H, W, 3)."""
    poses: Path
    """Folder of the poses asked for: one .npz per clip, of the same name."""
    ground_truth: Path | None = None
    """Folder of real or rendered clips of the same poses and names. The detector's score on them is
    its ceiling; without it the ceiling is not measured."""
    detector: str = "figures"
    """Pose detector that looks at the clips; an unknown name lists the known ones."""
    weights: Path | None = None
    """Folder with the detector's weights; without it the shipped or downloaded ones."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""
