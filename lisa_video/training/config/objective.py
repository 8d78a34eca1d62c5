"""What a run minimises."""

from __future__ import annotations

from dataclasses import dataclass

from lisa_video.config_checks import positive


@dataclass(frozen=True)
class AlignmentConfig:
    """The alignment loss; without effect on the plain objective."""

    weight: float = 0.2
    """lambda: weight of the alignment loss beside the main loss."""
    tap: str = "down_5"
    """Injection point whose feature the LISA decoder reads, such as down_5 or block_3."""
    frame_weighting: bool = True
    """Weigh each frame by the confidence of its keypoints."""
    decoder_lr_scale: float = 1.0
    """Learning rate of the LISA decoder as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        positive("alignment", weight=self.weight, decoder_lr_scale=self.decoder_lr_scale)


@dataclass(frozen=True)
class TimestepConfig:
    """Which noise levels are trained."""

    shift: float = 1.0
    """1 draws timesteps uniformly, above 1 towards high noise."""

    def __post_init__(self) -> None:
        positive("timesteps", shift=self.shift)
