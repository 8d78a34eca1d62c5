import numpy as np
import pytest

from lisa_video.gallery import as_frames, contact_sheet, side_by_side, titled_rows


def test_panels_stand_side_by_side_under_their_labels() -> None:
    red = np.zeros((3, 16, 16, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    wide = np.zeros((3, 8, 16, 3), np.uint8) + np.array([0, 0, 255], np.uint8)
    joined = side_by_side({"one": red, "two": wide}, side=32)
    assert joined.shape == (3, 22 + 32, 32 + 4 + 64, 3)
    assert (joined[:, 22:, :32] == [255, 0, 0]).all() and (joined[:, 22:, 36:] == [0, 0, 255]).all()
    assert joined[:, :22].min() < 100, "labels are written"


def test_panels_keep_their_own_frames() -> None:
    ramp = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    joined = side_by_side({"a": ramp, "b": ramp[::-1]}, side=8)
    assert joined[1, -1, 0, 0] == 1 and joined[1, -1, -1, 0] == 2


def test_unequal_lengths_are_a_programming_error() -> None:
    with pytest.raises(AssertionError):
        side_by_side({"a": np.zeros((2, 8, 8, 3), np.uint8), "b": np.zeros((3, 8, 8, 3), np.uint8)})


def test_contact_sheet_spreads_over_the_clip_and_cuts_long_labels() -> None:
    ramp = (np.arange(9, dtype=np.uint8) * 10)[:, None, None, None] * np.ones(
        (1, 8, 8, 3), np.uint8
    )
    sheet = contact_sheet([("x" * 300, ramp), ("short", ramp[:1])], frames=3, side=8)
    assert sheet.shape == (2 * (22 + 8), 24, 3)
    assert [sheet[25, column, 0] for column in (0, 8, 16)] == [0, 40, 80]


def test_titled_rows_are_as_wide_as_the_widest() -> None:
    wide, narrow = np.zeros((8, 40, 3), np.uint8), np.zeros((6, 10, 3), np.uint8)
    joined = titled_rows([("first", wide), ("second", narrow)])
    assert joined.shape == (22 + 8 + 22 + 6, 40, 3)
    assert not joined[-6:, :10].any() and joined[-6:, 10:].min() > 200


def test_drawn_poses_become_pictures() -> None:
    drawn = np.zeros((1, 3, 2, 2), np.float32)
    drawn[0, 1] = 0.5
    assert as_frames(drawn)[0, 0, 0].tolist() == [0, 128, 0]
