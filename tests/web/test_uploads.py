"""Uploaded files beyond the limits, and broken ones."""

import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.video import write_video
from lisa_video.web.requests import plain_line, skeleton_preview
from lisa_video.web.uploads import check_driver_file, check_reference_file
from tests.broken_videos import FAULTS, break_videos, moving_frames
from tests.web.choices import CONFIG, DRIVER, LIMITS, SAMPLES


def test_broken_uploads_are_refused_with_the_reason_and_no_path(tmp_path: Path) -> None:
    """All but those whose damage shows only when all frames are decoded."""
    faults = [fault for fault in FAULTS if fault.name not in ("hole", "folder", "link")]
    for path in break_videos(tmp_path, faults):
        choice = replace(DRIVER, upload=path)
        with pytest.raises(UserError) as caught:
            skeleton_preview(CONFIG, choice, tmp_path)
        line = plain_line(caught.value, path)
        assert str(tmp_path) not in line and line.startswith(f"{path.name}: "), line


def test_limits_of_uploads(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", moving_frames(count=40), 10)
    write_video(tmp_path / "wide.mp4", moving_frames(count=2, size=(160, 80)), 10)
    (tmp_path / "large.mp4").write_bytes(bytes(210_000))
    (tmp_path / "a.exe").write_bytes(b"MZ")
    poses = PoseSequence.load(SAMPLES["poses"])
    poses.frames([0] * 31).save(tmp_path / "long.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keypoints.npy", bytes(70 * 2**20))
    PoseSequence(poses.keypoints, 10**6, 1, fps=10).save(tmp_path / "broad.npz")
    (tmp_path / "text.npz").write_text("no")
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32))
    with (
        zipfile.ZipFile(tmp_path / "liar.npz", "w") as archive,
        archive.open("keypoints.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header | {"shape": (2**50,)})
    for name, message in {
        "long.mp4": "long.mp4: lasts 4.0 s, and at most 3 s",
        "wide.mp4": "wide.mp4: 160x80 pixels are too many",
        "large.mp4": "large.mp4: larger than 0.2 MB",
        "a.exe": "a.exe: not a driver",
        "long.npz": "long.npz: lasts 3.1 s",
        "bomb.npz": "bomb.npz: unpacks to 70 MiB",
        "broad.npz": "broad.npz: 1000000x1 pixels",
        "text.npz": "text.npz: not a pose file",
        "liar.npz": "liar.npz: not a pose file",
    }.items():
        with pytest.raises(UserError, match=message):
            check_driver_file(tmp_path / name, LIMITS)
        if name != "a.exe":
            with pytest.raises(UserError, match=message):
                check_reference_file(tmp_path / name, LIMITS)


def test_a_picture_is_measured_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
    (tmp_path / "text.jpg").write_text("no")
    (tmp_path / "video.png").write_bytes(SAMPLES["video"].read_bytes())
    cv2.imwrite(str(tmp_path / "wide.webp"), np.zeros((8, 90, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "large.bmp"), np.zeros((300, 300, 3), np.uint8))
    for name, message in {
        "bomb.png": "bomb.png: (60000x60000 pixels are too many|cannot be read as an image)",
        "text.jpg": "text.jpg: cannot be read as an image",
        "video.png": "video.png: cannot be read as an image",
        "wide.webp": "wide.webp: 90x8 pixels; one side may be 8 times",
        "large.bmp": "large.bmp: larger than 0.2 MB",
    }.items():
        with pytest.raises(UserError, match=message):
            check_reference_file(tmp_path / name, LIMITS)
