"""What a run's figures mean, said in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lisa_video.training.run_figures import Row, data_share, final_mean, last, numbers
from lisa_video.training.run_record import RunSummary

_SLOW_DATA = 0.05  # share of the time
_NO_GAP = 0.01  # of the backbone's own loss
_NOTHING_EXPLAINED = 0.97  # alignment loss / target norm
_POOR_CEILING = 0.5  # PCK
_RISEN = 1.02  # held-out loss against its lowest


@dataclass(frozen=True)
class Note:
    """One sentence."""

    warning: bool
    text: str


def notes(run: RunSummary, rows: Sequence[Row]) -> list[Note]:
    """All that there is to say, warnings first."""
    found = [*_ending(run), *_adherence(rows), *_scores(rows), *_losses(rows), *_machine(run, rows)]
    return sorted(found, key=lambda note: not note.warning)


def _ending(run: RunSummary) -> Iterator[Note]:
    reason = f": {run.reason}" if run.reason else ""
    if run.status == "running":
        yield Note(False, f"The run is not finished: {run.step} of {run.steps} steps were kept.")
    elif run.status != "finished":
        yield Note(
            True, f"The run {_VERBS.get(run.status, run.status)} at step {run.step}{reason}."
        )
    if run.history:
        times = "once" if len(run.history) == 1 else f"{len(run.history)} times"
        yield Note(False, f"It was interrupted {times} and went on from its last checkpoint.")
    for name, what in (("sources", "code"), ("data", "data")):
        if len({getattr(part, name) for part in (*run.history, run)}) > 1:
            yield Note(True, f"The {what} changed between its parts; see the history.")
    if run.git is not None and run.git.endswith("-dirty"):
        yield Note(True, "The code had changes that no commit holds.")


_VERBS = {"failed": "failed", "interrupted": "was interrupted", "killed": "was killed"}


def _adherence(rows: Sequence[Row]) -> Iterator[Note]:
    gap, prior = last(rows, "probe/gap"), last(rows, "probe/prior")
    if gap is None or prior is None:
        yield Note(
            True, "Nothing was probed: the losses alone do not say whether poses are followed."
        )
        return
    if gap < _NO_GAP * prior:
        yield Note(
            True,
            f"The adherence gap is {_near_zero(gap)} at the end, under {_NO_GAP:.0%} of the loss of "
            "the backbone alone: the poses are not followed yet.",
        )
    else:
        yield Note(
            False,
            f"The adherence gap is {gap:.4f}, {gap / prior:.0%} of the loss of the backbone alone: "
            "the network uses the poses.",
        )
    losses = numbers(rows, "probe/true")
    step, lowest = min(losses, key=lambda point: point[1])
    if losses[-1][1] > _RISEN * lowest:
        yield Note(
            True,
            f"The held-out loss with true poses was lowest, {lowest:.4f}, at step {step} and is "
            f"{losses[-1][1]:.4f} at the end: it may be learning the training clips by heart.",
        )


def _scores(rows: Sequence[Row]) -> Iterator[Note]:
    pck, ceiling = last(rows, "validation/pck@0.1"), last(rows, "validation/ceiling_pck@0.1")
    if pck is None or ceiling is None:
        yield Note(False, "No clips were generated for validation (validation.every is 0).")
        return
    best_step, best = max(numbers(rows, "validation/pck@0.1"), key=lambda point: point[1])
    yield Note(
        False,
        f"PCK@0.1 of generated clips is {pck:.3f}, of a ceiling of {ceiling:.3f}: what the detector "
        f"finds in the true clips. Its best was {best:.3f} at step {best_step}.",
    )
    if ceiling < _POOR_CEILING:
        yield Note(
            True,
            f"The detector finds only {ceiling:.0%} of the joints of the true clips: it does not "
            "suit them, and PCK says little.",
        )


def _losses(rows: Sequence[Row]) -> Iterator[Note]:
    ratio = final_mean(rows, "ratio")
    if ratio is not None and ratio > _NOTHING_EXPLAINED:
        yield Note(
            True,
            f"The LISA decoder explains {max(0.0, 1 - ratio):.1%} of its target: the alignment loss "
            "teaches next to nothing yet.",
        )
    # JSON has no word for a norm that overflowed: the log has null.
    overflowed = sum("grad_norm" in row and row["grad_norm"] is None for row in rows)
    if overflowed:
        yield Note(
            True,
            f"In {overflowed} of the logged steps the gradients were not finite; with fp16 such "
            "steps change nothing and lower the loss scale.",
        )


def _machine(run: RunSummary, rows: Sequence[Row]) -> Iterator[Note]:
    share = data_share(rows)
    if share is None:
        return
    advice = ""
    if share > _SLOW_DATA:
        advice = " Encode the clips once with pipelines/cache.py, or raise data.workers."
    yield Note(
        share > _SLOW_DATA,
        f"Waiting for clips, with their decoding and encoding, took {share:.0%} of the time.{advice}",
    )


def _near_zero(value: float) -> str:
    return "still 0" if abs(value) < 5e-5 else f"{value:.4f}"
