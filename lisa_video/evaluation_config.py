"""Settings of the evaluation job. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.errors import UserError

DISTRIBUTION = ("fvd", "kvd", "fvd_infinity", "fid")
"""Compare all generated clips with all real ones."""
POSE = (
    "pck",
    "oks",
    "keypoint_distance",
    "missing_rate",
    "extra_people",
    "acceleration",
    "jitter",
)
"""Compare the joints found in a generated clip with those asked for."""
PICTURES = ("flicker", "warp_error")
"""Look at a generated clip alone."""
PAIRS = ("psnr", "ssim", "lpips")
"""Compare a generated clip with the real one of its name."""
METRICS = (*DISTRIBUTION, *POSE, *PICTURES, *PAIRS)

MANY_DRAWS = 10
"""Fewest half samples that make an interval."""


@dataclass(frozen=True)
class SamplingConfig:
    """Which clips of a video the distances of distributions look at; null is the preset's."""

    frames: int | None = None
    """Frames of a clip."""
    stride: int | None = None
    """From one frame of a clip to the next, in frames of the video."""
    clips: int | None = None
    """Clips per video; 0 takes every window."""
    step: int | None = None
    """From one window to the next, where every window is taken."""
    start: Literal["first", "middle", "random"] | None = None
    """Where clips lie in real and generated videos alike."""
    short_videos: Literal["error", "skip", "pad"] = "error"
    """A video shorter than a clip: stop, leave it out, or repeat its last frame."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Score generated video: against real video, against the poses asked for, and by itself."""

    fake: Path | None = None
    """Folder of generated clips: videos, folders of images, or .npy of uint8 (frames, H, W, 3)."""
    real: Path | None = None
    """Folder of real clips, or a file of their statistics that this job wrote (.npz)."""
    poses: Path | None = None
    """Folder of the poses asked for: one .npz per generated clip, of the same name."""
    fake_poses: Path | None = None
    """Folder of the poses found in the generated clips, one .npz each; without it a detector looks
    at the clips."""
    ground_truth: Path | None = None
    """Folder of real or rendered clips of the same poses and names. The detector's score on them is
    its ceiling; without it the ceiling is not measured."""
    metrics: str = "pck,keypoint_distance,missing_rate"
    """Names separated by commas; an unknown one lists the known ones."""
    preset: str = "stylegan-v"
    """FVD protocol: stylegan-v, original, junyaohu or disco."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Clips of fvd, kvd, fvd_infinity and fid."""
    network: str = "i3d"
    """Network of fvd and kvd: i3d (fetched once), or a file or folder. Results of another one are
    called FD and KD with its name."""
    fid_network: Path | None = None
    """TorchScript network of fid."""
    lpips_network: Path | None = None
    """TorchScript network of lpips."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of I3D."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto takes CUDA where there is a device."""
    batch_size: int = 0
    """Clips at a time; 0 takes 1 on a CPU, so that values do not depend on the batch, or 16."""
    draws: int = 50
    """Half samples that an interval is made of; 0 gives none."""
    seed: int = 0
    """Of intervals and of random clips."""
    pose_preset: str = "strict"
    """Rules of scoring poses: strict, lisa or mmpose."""
    pose_reference: Literal["max_side", "diagonal", "torso", "head"] | None = None
    """Length that distances of joints are divided by; null is the rules' own."""
    detector: str = "figures"
    """Pose detector that looks at the clips; an unknown name lists the known ones."""
    weights: Path | None = None
    """Folder with the detector's weights; without it the shipped or downloaded ones."""
    json: Path | None = None
    """File for the result as JSON; must not exist."""
    html: Path | None = None
    """File for a report that stands alone; must not exist."""
    statistics: Path | None = None
    """File for the statistics of the real clips (.npz), which `real` takes later; must not exist."""
    cache: Path | None = None
    """Folder where features are kept; null is a folder in the cache of lisa_video."""
    use_cache: bool = True
    """Keep features, and use those kept."""
    allow_skips: bool = False
    """Exit with code 0 although clips that cannot be used were left out."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.metric_names if name not in METRICS]
        if unknown:
            raise UserError(f"metrics: unknown '{unknown[0]}', known: {', '.join(METRICS)}")
        if self.batch_size < 0:
            raise UserError(f"batch_size={self.batch_size}: must not be negative")
        if self.draws and self.draws < MANY_DRAWS:
            raise UserError(f"draws={self.draws}: give 0, or at least {MANY_DRAWS}")
        self._check_inputs()

    @property
    def metric_names(self) -> list[str]:
        """Metrics asked for, each once."""
        names = [name.strip() for name in self.metrics.split(",")]
        return list(dict.fromkeys(name for name in names if name)) or [""]

    def asked(self, group: tuple[str, ...]) -> list[str]:
        """Metrics of a group that are asked for."""
        return [name for name in self.metric_names if name in group]

    def _check_inputs(self) -> None:
        """Each metric has what it looks at."""
        has_pose_input = self.fake is not None or self.fake_poses is not None
        for group, there, needed in (
            ((*DISTRIBUTION, *PAIRS), self.real is not None, "real"),
            ((*DISTRIBUTION, *PAIRS, *PICTURES), self.fake is not None, "fake"),
            (POSE, self.poses is not None, "poses"),
            (POSE, has_pose_input, "fake or fake_poses"),
            (("fid",), self.fid_network is not None, "fid_network"),
            (("lpips",), self.lpips_network is not None, "lpips_network"),
        ):
            if self.asked(group) and not there:
                raise UserError(f"metric '{self.asked(group)[0]}' needs {needed}")
        if self.statistics is not None and not self.asked(("fvd",)):
            raise UserError("statistics are those of fvd, which is not among the metrics")
