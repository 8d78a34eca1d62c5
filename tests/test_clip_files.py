"""Clips in folders: which files count, in which order their frames come, and what is refused."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lisa_video.clip_files import count_frames, find_clips, find_poses, read_clip
from lisa_video.errors import UserError


def write_image(path: Path, value: int, size: tuple[int, int] = (6, 4)) -> None:
    width, height = size
    cv2.imwrite(str(path), np.full((height, width, 3), [value, 0, 200], np.uint8))  # BGR


def test_clips_are_found_by_stem_and_other_files_passed_over(tmp_path: Path) -> None:
    for name in ("b.npy", "a.mp4", "c.GIF", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "d").mkdir()
    write_image(tmp_path / "d" / "0.png", 1)
    (tmp_path / "empty").mkdir()
    clips = find_clips(tmp_path)
    assert {stem: path.name for stem, path in clips.items()} == {
        "a": "a.mp4",
        "b": "b.npy",
        "c": "c.GIF",
        "d": "d",
    }


def test_images_are_frames_in_numerical_order_as_rgb(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write_image(tmp_path / f"frame_{number}.png", number)
    frames = read_clip(tmp_path)
    assert frames.shape == (count_frames(tmp_path), 4, 6, 3) == (3, 4, 6, 3)
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0].tolist() == [[200, 0, 1], [200, 0, 9], [200, 0, 10]]


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "clip.npy", frames)
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.npy"), frames)
    assert count_frames(tmp_path / "clip.npy") == 3


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"), [(".gif", "gif", "rgb8"), (".mkv", "ffv1", "bgr0")]
)
def test_videos_are_read_whatever_their_container(
    tmp_path: Path, suffix: str, codec: str, pixels: str
) -> None:
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[:, 16 * index :] = 255
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format=pixels)))
        container.mux(stream.encode())
    assert count_frames(path) == 4
    assert np.abs(read_clip(path).astype(int) - frames).max() < 8


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 4, 6, 3), np.float32),
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((3, 4, 6, 4), np.uint8),
        np.zeros((0, 4, 6, 3), np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "clip.npy", values)
    with pytest.raises(UserError, match=r"clip\.npy: holds .* a clip is uint8"):
        read_clip(tmp_path / "clip.npy")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((3, 4, 6, 3), np.uint8))
    for name, content in {
        "cut.npy": (tmp_path / "whole.npy").read_bytes()[:150],
        "text.npy": b"not an array",
        "none.npy": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: cannot be read as a NumPy array"):
            read_clip(tmp_path / name)
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"pickled\.npy: cannot be read"):
        read_clip(pickled)


@pytest.mark.parametrize("content", [b"not an image", b""])
def test_images_that_do_not_fit_are_named(tmp_path: Path, content: bytes) -> None:
    write_image(tmp_path / "0.png", 0)
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(UserError, match=r"1\.png: cannot be read as an image"):
        read_clip(tmp_path)
    write_image(tmp_path / "1.png", 0, size=(8, 4))
    with pytest.raises(UserError, match=r"1\.png: 8x4 pixels, .* have 6x4"):
        read_clip(tmp_path)


def test_folders_that_are_missing_empty_or_ambiguous(tmp_path: Path) -> None:
    for find in (find_clips, find_poses):
        with pytest.raises(UserError, match="absent: no such folder"):
            find(tmp_path / "absent")
    with pytest.raises(UserError, match="no clip here"):
        find_clips(tmp_path)
    with pytest.raises(UserError, match="no pose file"):
        find_poses(tmp_path)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.gif").touch()
    with pytest.raises(UserError, match=r"both a\.gif and a\.mp4 are clip 'a'"):
        find_clips(tmp_path)
