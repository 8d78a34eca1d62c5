"""Which frames of a clip make a window."""

import numpy as np
import pytest

from lisa_video.windows import WindowRule, frame_at, window_span

RATES = (8.0, 12.5, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0)


@pytest.mark.parametrize("wanted", [8.0, 16.0, 24.0, 30.0])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_frames_by_time_are_at_most_half_a_frame_away(wanted: float, stride: int) -> None:
    rule = WindowRule(range(stride, stride + 1), wanted)
    for fps in RATES:
        step = rule.step(fps, stride)
        places = np.array([frame_at(place, step) for place in range(81)])
        times = np.arange(81) * stride / wanted
        assert np.abs(places / fps - times).max() <= 0.5 / fps + 1e-9
        assert places[-1] == window_span(81, step) - 1
        if rule.fitting(81, 10_000, fps):
            assert (np.diff(places) >= 1).all(), "no frame is shown twice"
        else:
            assert len(set(places)) < 81


def test_without_a_rate_strides_count_frames_of_the_video() -> None:
    rule = WindowRule(range(2, 3))
    assert [frame_at(place, rule.step(30.0, 2)) for place in range(4)] == [0, 2, 4, 6]


def test_all_clips_at_once_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    clip_frames = rng.integers(1, 120, 400)
    clip_fps = rng.choice(RATES, 400)
    for rule in (
        WindowRule(range(1, 2)),
        WindowRule(range(2, 5)),
        WindowRule(range(1, 2), 24.0),
        WindowRule(range(1, 4), 16.0),
    ):
        for frames in (1, 8, 17, 33):
            each = [
                bool(rule.fitting(frames, int(count), float(fps)))
                for count, fps in zip(clip_frames, clip_fps, strict=True)
            ]
            assert rule.fits(frames, clip_frames, clip_fps).tolist() == each
            assert 0 < sum(each) < 400 or frames == 1


def test_a_clip_that_holds_no_window_is_told_why() -> None:
    plain = WindowRule(range(3, 5))
    assert (
        plain.why_not(5, 12, 10.0) == "has 12 frames, a window of 5 frames with stride 3 needs 13"
    )
    timed = WindowRule(range(1, 2), 24.0)
    assert timed.why_not(81, 50, 30.0) == (
        "has 50 frames, a window of 81 frames with stride 1 at 24 of 30 fps needs 101"
    )
    assert timed.why_not(81, 500, 15.0) == (
        "has 15 fps, a window of 81 frames with stride 1 at 24 fps would repeat some of its frames"
    )
