import pytest

from lisa_video.training.run_figures import data_share, final_mean, last, numbers, run_figures


def test_what_is_no_number_is_left_out() -> None:
    rows = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": float("nan")},
        {"step": 4, "loss": "high"},
        {"step": 5},
        {"step": 6, "loss": 3},
    ]
    assert numbers(rows, "loss") == [(1, 1.0), (6, 3.0)]
    assert last(rows, "loss") == 3 and last(rows, "main") is None


@pytest.mark.parametrize(("lines", "expected"), [(1, 0.0), (10, 9.0), (11, 9.5), (40, 37.5)])
def test_losses_at_the_end_are_means_of_the_last_tenth(lines: int, expected: float) -> None:
    rows = [{"step": step, "loss": float(step)} for step in range(lines)]
    assert final_mean(rows, "loss") == expected


def test_figures_of_an_empty_log_and_of_a_full_one() -> None:
    assert not any(run_figures([]).values())
    rows = [
        {"step": 0, "probe/gap": 0.0},
        {"step": 1, "loss": 2.0, "step_s": 3.0, "data_s": 1.0, "memory_gib": 5.0},
        {"step": 2, "loss": 1.0, "step_s": 1.0, "data_s": 0.0, "memory_gib": 4.0, "probe/gap": 0.5},
    ]
    figures = run_figures(rows)
    assert figures["loss"] == 1.0 and figures["main"] is None
    assert figures["probe/gap"] == 0.5 and figures["step_s"] == 2.0
    assert figures["memory_gib"] == 5.0
    assert figures["data_share"] == data_share(rows) == pytest.approx(0.2)
