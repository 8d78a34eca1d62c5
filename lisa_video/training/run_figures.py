"""The few figures that sum a run up, from the lines of its log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

Row = Mapping[str, Any]

_LAST_SHARE = 0.1  # of the logged lines, over which noisy losses are averaged
_LOSSES = ("loss", "main", "alignment", "ratio", "explained")


def numbers(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    """(step, value) of every line that has a finite number under `name`."""
    return [
        (row["step"], float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def last(rows: Sequence[Row], name: str) -> float | None:
    """The newest number under `name`, where there is one."""
    found = numbers(rows, name)
    return found[-1][1] if found else None


def final_mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean of the last tenth of the numbers under `name`, where there are any."""
    values = [value for _, value in numbers(rows, name)]
    return fmean(values[-math.ceil(_LAST_SHARE * len(values)) :]) if values else None


def data_share(rows: Sequence[Row]) -> float | None:
    """Share of the training time that went into reading and encoding clips."""
    seconds = sum(value for _, value in numbers(rows, "step_s"))
    waited = sum(value for _, value in numbers(rows, "data_s"))
    return waited / (seconds + waited) if seconds + waited > 0 else None


def run_figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """Losses at the end (each a mean over the last tenth of the logged lines), the newest probe and
    validation, median seconds a step, pace and peak memory; None for what there is not."""
    probed = dict.fromkeys(
        name for row in rows for name in row if name.startswith(("probe/", "validation/"))
    )
    steps = [value for _, value in numbers(rows, "step_s")]
    memory = [value for _, value in numbers(rows, "memory_gib")]
    return {
        **{name: final_mean(rows, name) for name in _LOSSES},
        **{name: last(rows, name) for name in probed},
        "step_s": median(steps) if steps else None,
        "data_share": data_share(rows),
        "clips_s": final_mean(rows, "clips_s"),
        "frames_s": final_mean(rows, "frames_s"),
        "memory_gib": max(memory, default=None),
    }
