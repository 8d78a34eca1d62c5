"""Which frames make a clip."""

import pytest

from lisa_video.errors import UserError
from lisa_video.metrics.sampling import ClipSampling


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (ClipSampling(3), [[0, 1, 2]]),
        (ClipSampling(3, stride=2), [[0, 2, 4]]),
        (ClipSampling(3, start="middle"), [[4, 5, 6]]),
        (ClipSampling(3, clips=2), [[0, 1, 2], [7, 8, 9]]),
        (ClipSampling(4, clips=2, start="middle"), [[1, 2, 3, 4], [5, 6, 7, 8]]),
        (ClipSampling(8, clips=0), [[*range(8)], [*range(1, 9)], [*range(2, 10)]]),
        (ClipSampling(4, clips=0, step=3), [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
        (ClipSampling(10), [[*range(10)]]),
    ],
)
def test_clips_of_a_video_of_ten_frames(sampling: ClipSampling, expected: list[list[int]]) -> None:
    assert sampling.indices(10, "clip") == expected


def test_random_starts_depend_on_seed_and_name_only() -> None:
    sampling = ClipSampling(4, clips=3, start="random")
    clips = sampling.indices(40, "a")
    assert clips is not None
    assert clips == sampling.indices(40, "a") != sampling.indices(40, "b")
    assert clips != ClipSampling(4, clips=3, start="random", seed=1).indices(40, "a")
    starts = [clip[0] for clip in clips]
    assert starts == sorted(set(starts)) and all(0 <= start <= 36 for start in starts)


def test_a_video_that_is_too_short_has_no_clips_unless_padded() -> None:
    assert ClipSampling(11).indices(10, "a") is None
    assert ClipSampling(5, stride=3).indices(12, "a") is None
    assert ClipSampling(9, clips=3).indices(10, "a") is None
    assert ClipSampling(5, short="pad").indices(3, "a") == [[0, 1, 2, 2, 2]]
    assert ClipSampling(2, short="pad").indices(3, "a") == [[0, 1]]


def test_settings_out_of_range_are_named() -> None:
    for change in ({"frames": 0}, {"stride": 0}, {"step": 0}):
        with pytest.raises(UserError, match="=0: must be at least 1"):
            ClipSampling(**change)
    with pytest.raises(UserError, match="clips=-1"):
        ClipSampling(clips=-1)
