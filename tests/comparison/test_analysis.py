import math

import pytest

from lisa_video.comparison.analysis import breakthrough_step, first_reaching, mean_curve


def test_first_reaching_interpolates_between_points() -> None:
    curve = [(0, 0.1), (100, 0.3), (200, 0.7)]
    assert first_reaching(curve, 0.5) == pytest.approx(150)
    assert first_reaching(curve, 0.3) == pytest.approx(100)


def test_first_reaching_takes_the_first_crossing_of_a_curve_that_falls_back() -> None:
    assert first_reaching([(0, 0.0), (10, 1.0), (20, 0.2), (30, 1.0)], 0.5) == pytest.approx(5)


def test_first_reaching_at_the_start_and_never() -> None:
    assert first_reaching([(50, 0.9), (100, 0.1)], 0.5) == 50
    assert first_reaching([(0, 0.1), (10, 0.2)], 0.5) is None


def test_breakthrough_is_the_first_probe_above_the_fraction() -> None:
    gaps = [(0, 0.0), (25, 0.004), (50, 0.012), (75, 0.03)]
    assert breakthrough_step(gaps, final_plain_gap=0.04, fraction=0.25) == 50
    assert breakthrough_step(gaps, final_plain_gap=1.0, fraction=0.25) is None


def test_mean_curve_has_students_interval_over_shared_steps() -> None:
    points = mean_curve([[(0, 1.0), (10, 2.0)], [(0, 3.0), (10, 2.0), (20, 9.0)]])
    assert [point.step for point in points] == [0, 10]
    assert points[0].mean == 2.0
    # Two values 1 and 3: s = sqrt 2, standard error 1, t(0.975, 1) = 12.7062.
    assert points[0].high - points[0].mean == pytest.approx(12.7062, abs=1e-4)
    assert points[1].low == points[1].high == 2.0


def test_one_seed_has_no_interval() -> None:
    (point,) = mean_curve([[(5, 0.25)]])
    assert (point.low, point.mean, point.high, point.seeds) == (0.25, 0.25, 0.25, 1)
    assert math.isfinite(point.low)


def test_a_measure_that_a_seed_lacks_has_no_mean_there() -> None:
    first, second = mean_curve([[(0, math.nan), (10, 2.0)], [(0, 3.0), (10, 4.0)]])
    assert math.isnan(first.mean) and math.isnan(first.low) and math.isnan(first.high)
    assert second.mean == 3.0 and second.low < 3.0 < second.high
