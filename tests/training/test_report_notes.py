"""Whether the words say what the figures say."""

from dataclasses import replace
from typing import Any

import pytest

from lisa_video.training.report_notes import notes
from lisa_video.training.run_record import RunPart, RunSummary

PART: dict[str, Any] = {
    "status": "finished",
    "reason": None,
    "started": "2026-01-01T10:00:00+00:00",
    "updated": "2026-01-01T12:00:00+00:00",
    "ended": "2026-01-01T12:00:00+00:00",
    "first_step": 0,
    "step": 100,
    "command": ["train.py"],
    "git": "abc",
    "sources": "1",
    "versions": {},
    "hardware": {},
    "data": "2",
}
RUN = RunSummary(**PART, steps=100, config={}, seeds={}, backbone={}, figures={}, history=[])


def row(step: int = 1, **values: Any) -> dict[str, Any]:
    return {"step": step, **{name.replace("__", "/"): value for name, value in values.items()}}


def said(run: RunSummary = RUN, *rows: dict[str, Any]) -> tuple[str, str]:
    """Warnings, and the rest."""
    found = notes(run, rows)
    assert found == sorted(found, key=lambda note: not note.warning)
    texts = [" ".join(n.text for n in found if n.warning is level) for level in (True, False)]
    return texts[0], texts[1]


@pytest.mark.parametrize(
    ("gap", "warning"), [(0.0, "is still 0 at"), (0.004, "is 0.0040"), (0.2, None), (-0.1, "-0.1")]
)
def test_whether_poses_are_followed(gap: float, warning: str | None) -> None:
    warned, rest = said(RUN, row(probe__gap=gap, probe__prior=1.0, probe__true=0.5))
    if warning is None:
        assert "uses the poses" in rest and "followed yet" not in warned
    else:
        assert warning in warned and "not followed yet" in warned


def test_a_run_without_probe_says_so() -> None:
    assert "Nothing was probed" in said(RUN, row(loss=1.0))[0]


@pytest.mark.parametrize(("last", "learned_by_heart"), [(0.5, False), (0.505, False), (0.6, True)])
def test_a_held_out_loss_that_rises_again(last: float, learned_by_heart: bool) -> None:
    rows = [
        row(step, probe__gap=0.3, probe__prior=1.0, probe__true=true)
        for step, true in ((0, 1.0), (10, 0.5), (20, last))
    ]
    warned, _ = said(RUN, *rows)
    assert ("learning the training clips by heart" in warned) == learned_by_heart
    if learned_by_heart:
        assert "at step 10" in warned


def scored(step: int, pck: float, ceiling: float) -> dict[str, Any]:
    return {"step": step, "validation/pck@0.1": pck, "validation/ceiling_pck@0.1": ceiling}


def test_scores_are_told_with_their_ceiling() -> None:
    warned, rest = said(RUN, scored(10, 0.5, 0.9), scored(20, 0.4, 0.9))
    assert "is 0.400, of a ceiling of 0.900" in rest and "best was 0.500 at step 10" in rest
    assert "detector" not in warned
    assert "finds only 30% of the joints" in said(RUN, scored(10, 0.2, 0.3))[0]
    assert "validation.every is 0" in said(RUN)[1]


def test_waiting_gradients_and_a_decoder_that_explains_nothing() -> None:
    slow = row(step_s=0.88, data_s=0.12, ratio=0.99, grad_norm=None)
    warned, _ = said(RUN, slow, row(grad_norm=1.0))
    assert "took 12% of the time" in warned and "pipelines/cache.py" in warned
    assert "In 1 of the logged steps the gradients were not finite" in warned
    assert "explains 1.0% of its target" in warned
    warned, rest = said(RUN, row(step_s=0.99, data_s=0.01, ratio=0.5, grad_norm=1.0))
    assert "took 1% of the time" in rest and "cache.py" not in rest
    assert "finite" not in warned and "decoder" not in warned


def test_how_it_ended_and_what_changed_on_the_way() -> None:
    assert "is not finished: 100 of 100" in said(replace(RUN, status="running"))[1]
    failed = replace(RUN, status="failed", reason="the loss is nan")
    assert "failed at step 100: the loss is nan." in said(failed)[0]
    earlier = RunPart(**{**PART, "status": "killed", "sources": "other"})
    warned, rest = said(replace(RUN, history=[earlier, RunPart(**PART)], git="abc-dirty"))
    assert "interrupted 2 times" in rest
    assert "The code changed" in warned and "The data changed" not in warned
    assert "no commit holds" in warned
