"""What the comparison reads off its curves: pure functions on numbers, no model.

A curve is a list of (step, value) pairs with increasing steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t

Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class CurvePoint:
    """Mean of a value over seeds at one step, with its 95 % interval.

    By Student's t; the mean itself for one seed. All three are NaN where a seed has no value.
    """

    step: int
    mean: float
    low: float
    high: float
    seeds: int


def first_reaching(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """The step at which a curve first reaches `level`, linear between its points; None if it never does.

    A curve that starts at or above the level reaches it at its first point.
    """
    previous: tuple[float, float] | None = None
    for step, value in curve:
        if value >= level:
            if previous is None:
                return float(step)
            before, below = previous
            return before + (level - below) / (value - below) * (step - before)
        previous = (step, value)
    return None


def breakthrough_step(gaps: Curve, final_plain_gap: float, fraction: float) -> int | None:
    """First probed step whose adherence gap passes `fraction` of the final plain gap; None if none does."""
    for step, gap in gaps:
        if gap > fraction * final_plain_gap:
            return step
    return None


def mean_curve(curves: Sequence[Curve]) -> list[CurvePoint]:
    """Average several seeds' curves over the steps that all of them have."""
    shared = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
    tables = [dict(curve) for curve in curves]
    points = []
    for step in shared:
        values = [table[step] for table in tables]
        middle = mean(values)
        reach = 0.0 if math.isfinite(middle) else math.nan
        if len(values) > 1 and math.isfinite(middle):
            quantile = float(student_t.ppf(0.975, len(values) - 1))
            reach = quantile * stdev(values) / math.sqrt(len(values))
        points.append(CurvePoint(step, middle, middle - reach, middle + reach, len(values)))
    return points
