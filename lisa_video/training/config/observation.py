"""What a run looks at while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lisa_video.config_checks import at_least

TrackerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True)
class ProbeConfig:
    """The adherence probe: losses on held-out clips with true, shuffled and no poses."""

    every: int = 500
    """Steps between probes; 0 never probes."""
    clips: int = 16
    """Held-out clips: the first ones of the validation split."""
    draws: int = 4
    """Noise levels per clip, the same at every probe."""
    seed: int = 0
    """Seed of windows, noise, timesteps and shuffling; the same for runs to be compared."""

    def __post_init__(self) -> None:
        at_least(0, "probe", every=self.every)
        at_least(2, "probe", clips=self.clips)
        at_least(1, "probe", draws=self.draws)


@dataclass(frozen=True)
class ValidationConfig:
    """Generation for held-out poses, scored by a detector against the poses asked for.

    The clips are the first of the validation split, in the windows that the probe sees. Captions,
    poses and initial noise are the same each time, and training is the same with and without it.
    """

    every: int = 0
    """Steps between validations, from step 0 on, and the last step; 0 never validates."""
    clips: int = 4
    """Held-out clips; the processes of a run share them."""
    inference_steps: int = 25
    """Sampler steps."""
    guidance_scale: float = 3.0
    """Classifier-free guidance of the text; at most 1 is none."""
    seed: int = 0
    """Seed of the initial noise, the same at every step."""
    detector: str = "figures"
    """Name of the pose detector: figures, blazepose, rtmpose or dwpose. Its own score on the true
    clips is logged beside every score, as the ceiling."""
    detector_weights: Path | None = None
    """Folder of the detector's weights, where it is not the shipped one."""
    videos: int = 4
    """Of the clips, those written as videos, poses, truth and generated side by side."""

    def __post_init__(self) -> None:
        at_least(0, "validation", every=self.every, seed=self.seed, videos=self.videos)
        at_least(1, "validation", clips=self.clips, inference_steps=self.inference_steps)


@dataclass(frozen=True)
class WandbConfig:
    """Where Weights & Biases keeps the run; read only where `trackers` names wandb."""

    project: str = "lisa_video"
    """Project."""
    entity: str | None = None
    """User or team; null: the user's own default."""
    name: str | None = None
    """Name of the run; null: that of the output folder."""
