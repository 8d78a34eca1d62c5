"""In which steps the alignment loss is made, and how much it weighs."""

from itertools import pairwise
from typing import Any

import pytest
from torch import nn

from lisa_video.training.config import AlignmentConfig, aligned_count, aligned_steps
from lisa_video.training.objective import alignment_weight, lisa_at

STEPS = range(1, 41)


def weights(**settings: Any) -> list[float]:
    config = AlignmentConfig(weight=0.2, **settings)
    return [alignment_weight(config, step) for step in STEPS]


def test_by_default_every_step_has_the_same_weight() -> None:
    assert weights() == [0.2] * len(STEPS)


@pytest.mark.parametrize("every", [2, 4, 5])
def test_some_steps_weigh_as_much_as_all_of_them(every: int) -> None:
    some = weights(every=every)
    assert [step for step, weight in zip(STEPS, some, strict=True) if weight] == [
        step for step in STEPS if step % every == 0
    ]
    assert sum(some) == pytest.approx(sum(weights()))


def test_until_ends_after_its_step() -> None:
    assert weights(schedule="until", until=7) == [0.2] * 7 + [0.0] * 33


def test_cosine_falls_from_the_weight_to_zero() -> None:
    falling = weights(schedule="cosine", until=20)
    assert falling[0] == 0.2 and falling[10] == pytest.approx(0.1)
    assert all(one > other for one, other in pairwise(falling[:21]))
    assert falling[20:] == [0.0] * 20


@pytest.mark.parametrize(
    "settings", [{}, {"every": 3}, {"schedule": "until", "until": 17, "every": 4}]
)
def test_aligned_steps_are_counted(settings: dict[str, Any]) -> None:
    config = AlignmentConfig(**settings)
    made = [lisa_at(config, nn.Identity(), step) is not None for step in STEPS]
    assert aligned_steps(config, len(STEPS)) == sum(made)
    assert all(lisa_at(config, None, step) is None for step in STEPS)


def test_at_least_one_clip_is_aligned() -> None:
    assert [aligned_count(8, fraction) for fraction in (1.0, 0.5, 0.25, 0.01)] == [8, 4, 2, 1]
    assert aligned_count(1, 0.5) == 1
