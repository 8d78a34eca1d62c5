"""Which shape a clip is trained in, and whose turn it is."""

from collections import Counter

import numpy as np
import pytest

from lisa_video.buckets import NO_BUCKET, Bucket, TurnOrder, best_buckets

WIDE, TALL, SQUARE = (64, 32), (32, 64), (48, 48)
BUCKETS = [
    Bucket(9, WIDE),
    Bucket(17, WIDE),
    Bucket(17, (32, 16)),
    Bucket(9, TALL),
    Bucket(9, SQUARE),
]


@pytest.mark.parametrize(
    ("width", "height", "frames", "expected"),
    [
        (640, 320, 100, 1),  # the longest, then the largest
        (640, 320, 17, 1),
        (640, 320, 16, 0),  # too short for 17
        (655, 320, 100, 1),  # nearly that shape
        (48, 24, 100, 2),  # the largest that does not enlarge it
        (16, 8, 100, 1),  # all enlarge it
        (300, 600, 100, 3),
        (500, 480, 100, 4),
        (640, 320, 8, NO_BUCKET),
    ],
)
def test_a_clip_goes_where_it_loses_least(
    width: int, height: int, frames: int, expected: int
) -> None:
    chosen = best_buckets(
        BUCKETS,
        np.array([width, 640]),
        np.array([height, 320]),
        [np.array([frames, 100]) >= each.frames for each in BUCKETS],
    )
    assert chosen.tolist() == [expected, 1]


@pytest.mark.parametrize("sizes", [[7], [1, 1], [5, 0, 3], [1, 97, 2], [333, 333, 334], [1] * 9])
def test_turns_are_in_proportion_at_any_time(sizes: list[int]) -> None:
    order = TurnOrder(sizes)
    taken: Counter[int] = Counter()
    for step in range(300):
        turn = order.turn(step)
        assert turn.number == taken[turn.bucket], "no turn is left out or taken twice"
        taken[turn.bucket] += 1
        for bucket, size in enumerate(sizes):
            due = (step + 1) * size / sum(sizes)
            assert abs(taken[bucket] - due) < 1


def test_a_late_turn_needs_none_before_it() -> None:
    order = TurnOrder([123_457, 876_543, 11])
    first = order.turn(10**9)
    assert first == TurnOrder([123_457, 876_543, 11]).turn(10**9)
    following = order.turn(10**9 + 1)
    assert following == order.turn(10**9 + 1) != first
