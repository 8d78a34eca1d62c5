"""Which steps of a run have an alignment loss, and how much it weighs there.

Both depend on the step alone, so that a run that goes on, and every process of it, agree.
"""

from __future__ import annotations

import math

from torch import nn

from lisa_video.training.config import AlignmentConfig
from lisa_video.training.losses import LisaObjective


def lisa_at(
    settings: AlignmentConfig, decoder: nn.Module | None, step: int
) -> LisaObjective | None:
    """What LISA adds in optimizer step `step`, from 1; None: nothing, or there is no `decoder`."""
    weight = alignment_weight(settings, step)
    if decoder is None or weight == 0:
        return None
    return LisaObjective(decoder, settings.taps, weight, settings.fraction)


def alignment_weight(settings: AlignmentConfig, step: int) -> float:
    """lambda of optimizer step `step`, from 1; 0 where it has no alignment loss.

    In every k-th step it is k times the schedule's, so that the expected gradient is that of an
    alignment loss in every step.
    """
    if step % settings.every:
        return 0.0
    return settings.every * settings.weight * schedule(settings, step)


def schedule(settings: AlignmentConfig, step: int) -> float:
    """The schedule's factor in [0, 1]: 1 at step 1, and 0 after `until` unless it is constant."""
    if settings.until is None:
        return 1.0
    if step > settings.until:
        return 0.0
    if settings.schedule == "until":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.until))
