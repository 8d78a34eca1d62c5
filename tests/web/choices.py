"""A page of the embedded backbone, and what a visitor chooses on it."""

from pathlib import Path

from lisa_video.training.config import BackboneConfig
from lisa_video.web.config import LimitsConfig, ModelConfig, WebConfig
from lisa_video.web.requests import ClipChoice, DriverChoice

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "data" / "embedded" / "animatediff"
SAMPLES = {
    "video": ROOT / "data" / "sample" / "videos" / "marching.mp4",
    "poses": ROOT / "data" / "sample" / "poses" / "marching.npz",
}
LIMITS = LimitsConfig(upload_mb=0.2, seconds=3, pixels=100 * 100, frames=20, steps=25)
CONFIG = WebConfig(
    models={
        "figures": ModelConfig(
            backbone=BackboneConfig(path=str(EMBEDDED / "backbone")),
            checkpoints={
                "LISA": str(EMBEDDED / "side_network"),
                "both": [str(EMBEDDED / "side_network"), str(EMBEDDED / "side_network_edges")],
            },
            scorer="figures",
        )
    },
    samples=SAMPLES,
    detectors=("figures",),
    limits=LIMITS,
)
DRIVER = DriverChoice(None, "video", "figures", "fit", "only", 2, 4, 5)
CLIP = ClipChoice("figures", ("LISA",), "a person", "", 3, 2, 2.0, 1.0, 0, False)


def new(folder: Path) -> Path:
    """A new folder for a result."""
    folder.mkdir(parents=True)
    return folder
