"""Scores of edges, on lines that are drawn by hand."""

import math

import numpy as np
import pytest

from lisa_video.metrics.edges import edge_scores


def line(column: int, frames: int = 2, size: int = 12) -> np.ndarray:
    edges = np.zeros((frames, size, size), dtype=bool)
    edges[:, :, column] = True
    return edges


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_a_line_meets_its_like_within_the_tolerance(shift: int, score: float) -> None:
    scores = edge_scores(line(4), line(4 + shift))
    assert scores.precision == scores.recall == scores.f1 == score
    assert edge_scores(line(4), line(4 + shift), tolerance=2).f1 == 1


def test_what_is_too_much_costs_precision_and_what_is_missing_recall() -> None:
    both = line(2) | line(9)
    more = edge_scores(line(2), both)
    assert (more.precision, more.recall, more.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    less = edge_scores(both, line(2))
    assert (less.precision, less.recall) == (1.0, 0.5)


def test_nothing_found_is_no_number_and_never_a_good_one() -> None:
    scores = edge_scores(line(4), np.zeros_like(line(4)))
    assert math.isnan(scores.precision) and scores.recall == 0 and math.isnan(scores.f1)
