"""Following people from frame to frame, and the choice of the main one."""

import numpy as np
import pytest

from lisa_video.extraction.people import likeness, main_people, prominence, track_people
from lisa_video.extraction_config import PeopleConfig

SIZE = (200, 100)


def person(x: float, y: float = 50, height: float = 40, confidence: float = 0.9) -> np.ndarray:
    """(18, 3): joints spread over a box around a centre."""
    spread = np.random.default_rng(0).uniform(-0.5, 0.5, (18, 2))
    spread[:2] = [[-0.5, -0.5], [0.5, 0.5]]
    places = [x, y] + spread * [height / 2, height]
    return np.concatenate([places, np.full((18, 1), confidence)], axis=1).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_people_keep_their_columns_whatever_order_they_are_found_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = np.array([[30 + 2 * t, 100 + 3 * np.sin(t), 170 - 2 * t] for t in range(20)])
    frames = []
    for places in paths:
        order = rng.permutation(3)
        frames.append(np.stack([person(places[who]) for who in order]))
    tracks = track_people(frames, max_gap=3)
    assert tracks.shape == (20, 3, 18, 3)
    middles = tracks[..., 0].mean(axis=-1)
    steps = np.abs(np.diff(middles, axis=0))
    assert steps.max() < 4, "somebody jumped to another's place"


def test_someone_lost_for_a_while_is_the_same_and_later_another() -> None:
    nobody = np.zeros((0, 18, 3), np.float32)
    seen = person(50)[None]
    short = track_people([seen, nobody, nobody, seen], max_gap=2)
    assert short.shape[1] == 1
    assert not short[1:3].any()
    assert track_people([seen, nobody, nobody, seen], max_gap=1).shape[1] == 2
    assert track_people([nobody, nobody], max_gap=1).shape == (2, 0, 18, 3)
    missed = np.zeros((1, 18, 3), np.float32)  # how a detector for one person says nobody
    assert track_people([missed, seen], max_gap=1).shape[1] == 1


def test_likeness_is_one_for_the_same_pose_and_falls_with_distance() -> None:
    here = person(50)
    values = [likeness(here, person(50 + shift)) for shift in (0, 2, 5, 10, 100)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0


def test_the_main_person_is_large_sure_and_long_there() -> None:
    frames = [
        np.stack([person(40, height=60), person(150, height=30)]) if t < 12 else person(150)[None]
        for t in range(16)
    ]
    tracks = track_people(frames, max_gap=2)
    value = prominence(tracks, SIZE)
    large = 2 * 12 * (30 * 60) * 0.9 / (2 * SIZE[0] * SIZE[1])
    assert value[0] == pytest.approx(large, rel=1e-5)
    (first,) = main_people(tracks, SIZE, PeopleConfig())[0].swapaxes(0, 1)
    np.testing.assert_array_equal(first, tracks[:, int(np.argmax(value))])
    both, _ = main_people(tracks, SIZE, PeopleConfig(keep=2))
    assert both.shape[1] == 2


def test_who_is_not_good_enough_is_left_out_with_the_reason() -> None:
    def reason(frames: list[np.ndarray], **changes: float) -> str:
        people, why = main_people(track_people(frames, 5), SIZE, PeopleConfig(**changes))
        assert people.shape[1] == 0
        return why

    nobody = np.zeros((0, 18, 3), np.float32)
    seen = person(50)[None]
    assert reason([nobody, nobody]) == "nobody was found"
    assert "1 of 4 frames" in reason([seen, nobody, nobody, nobody], min_presence=0.5)
    assert "0.400 of the picture's height" in reason([seen], min_height=0.5)
    assert "mean confidence of 0.900" in reason([seen], min_confidence=0.95)
