from pathlib import Path

import av
import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.video import read_video, write_video
from lisa_video.video.gif import write_gif


def test_a_gif_has_the_pictures_and_their_time(tmp_path: Path) -> None:
    squares = np.zeros((12, 32, 48, 3), np.uint8)
    for index, frame in enumerate(squares):
        frame[8:24, 2 * index : 2 * index + 16] = (250, 120, 10)
    write_video(tmp_path / "a.mp4", squares, 12)
    write_gif(tmp_path / "a.mp4", tmp_path / "a.gif")
    frames = read_video(tmp_path / "a.gif").frames
    assert frames.shape == squares.shape
    assert np.abs(frames.astype(int) - read_video(tmp_path / "a.mp4").frames).mean() < 4
    with av.open(str(tmp_path / "a.gif")) as container:
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.05)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 12)
    with pytest.raises(UserError, match="cannot write this file"):
        write_gif(tmp_path / "a.mp4", tmp_path / "none" / "a.gif")
