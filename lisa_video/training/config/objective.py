"""What a run minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError

Schedule = Literal["constant", "cosine", "until"]
Weighting = Literal["none", "min_snr"]
AlignmentWeighting = Literal["none", "min_snr", "score"]
TimestepSampling = Literal["uniform", "logit_normal"]

MIN_SNR_GAMMA = 5.0
"""The value that Hang et al. recommend, arXiv:2303.09556 sec. 4.2."""


@dataclass(frozen=True)
class LossConfig:
    """The main loss."""

    weighting: Weighting = "none"
    """Weight of a clip by its timestep. min_snr: min(SNR, gamma) on the error of x_0, as epsilon,
    v_prediction, sample or flow has it. It is 0 at pure noise, except for epsilon."""
    gamma: float = MIN_SNR_GAMMA
    """Of min_snr."""

    def __post_init__(self) -> None:
        _check_gamma("loss", self.weighting, self.gamma)


@dataclass(frozen=True)
class AlignmentConfig:
    """The alignment loss; without effect on the plain objective."""

    weight: float = 0.2
    """lambda: weight of the alignment loss beside the main loss."""
    tap: list[str] | str = "down_5"
    """Injection point whose feature the LISA decoder reads, such as down_5 or block_3. A list has a
    decoder for each, and the alignment loss is the mean over them."""
    every: int = 1
    """The alignment loss, with prior and decoder, is made in every k-th optimizer step, and weighs k
    times as much there, so that its share of the objective is the same."""
    fraction: float = 1.0
    """Share of each batch that it is made of: evenly spaced clips, at least one. The loss is a mean
    over these, so that its weight stays."""
    schedule: Schedule = "constant"
    """Of the weight: constant, until step `until`, or falling to 0 at `until` by half a cosine. After
    that a step costs what it costs under the plain objective."""
    until: int | None = None
    """Last step with an alignment loss, under until and cosine."""
    weighting: AlignmentWeighting = "none"
    """Weight of a clip by its timestep. min_snr: as the main loss has it; score: of the squared error
    in score units, times the noise variance, which is the error in epsilon."""
    gamma: float = MIN_SNR_GAMMA
    """Of min_snr."""
    frame_weighting: bool = True
    """Weigh each frame by the confidence of its keypoints."""
    decoder_lr_scale: float = 1.0
    """Learning rate of the LISA decoder as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        positive("alignment", weight=self.weight, decoder_lr_scale=self.decoder_lr_scale)
        at_least(1, "alignment", every=self.every)
        if not 0 < self.fraction <= 1:
            raise UserError(f"alignment.fraction={self.fraction}: must lie above 0 and up to 1")
        if not self.taps or len(set(self.taps)) != len(self.taps):
            raise UserError(f"alignment.tap={self.tap}: name at least one point, each once")
        _check_gamma("alignment", self.weighting, self.gamma)
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.until is None:
            if self.schedule != "constant":
                raise UserError(
                    f"alignment.schedule={self.schedule}: needs its last step, alignment.until"
                )
            return
        if self.schedule == "constant":
            raise UserError(
                f"alignment.until={self.until}: has no effect with alignment.schedule=constant; "
                "give until or cosine"
            )
        at_least(1, "alignment", until=self.until)
        if self.every > self.until:
            raise UserError(
                f"alignment.every={self.every}: no step up to alignment.until={self.until} would "
                "have an alignment loss"
            )

    @property
    def taps(self) -> list[str]:
        """The tapped injection points."""
        return [self.tap] if isinstance(self.tap, str) else self.tap


@dataclass(frozen=True)
class TimestepConfig:
    """Which noise levels are trained."""

    sampling: TimestepSampling = "uniform"
    """uniform, or logit_normal: more of the middle (Stable Diffusion 3)."""
    logit_mean: float = 0.0
    """Of logit_normal: above 0 is more of high noise."""
    logit_std: float = 1.0
    """Of logit_normal: smaller is more of the middle."""
    shift: float = 1.0
    """Above 1 moves what was drawn towards high noise, 1 leaves it."""
    shift_at: tuple[int, int, int] | None = None
    """Frames, width and height that `shift` is meant for: clips of other shapes get it times the root
    of their latent cells over those of this shape. null: the same for all."""

    def __post_init__(self) -> None:
        positive("timesteps", shift=self.shift, logit_std=self.logit_std)
        if not abs(self.logit_mean) < float("inf"):
            raise UserError(f"timesteps.logit_mean={self.logit_mean}: must be a number")
        if self.sampling == "uniform" and (self.logit_mean, self.logit_std) != (0.0, 1.0):
            raise UserError(
                "timesteps.logit_mean and logit_std have no effect with "
                "timesteps.sampling=uniform; give logit_normal"
            )
        if self.shift_at is not None and min(self.shift_at) < 1:
            raise UserError(f"timesteps.shift_at={list(self.shift_at)}: each must be at least 1")


def aligned_count(batch: int, fraction: float) -> int:
    """How many clips of a batch have an alignment loss."""
    return max(1, round(fraction * batch))


def aligned_steps(settings: AlignmentConfig, steps: int) -> int:
    """How many of the first `steps` optimizer steps have an alignment loss."""
    last = steps if settings.until is None else min(steps, settings.until)
    return last // settings.every


def _check_gamma(section: str, weighting: str, gamma: float) -> None:
    positive(section, gamma=gamma)
    if weighting != "min_snr" and gamma != MIN_SNR_GAMMA:
        raise UserError(
            f"{section}.gamma={gamma}: has no effect with {section}.weighting={weighting}; "
            "give min_snr"
        )
