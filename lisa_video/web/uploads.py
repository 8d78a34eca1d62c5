"""Uploaded files, checked before anything works on them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from PIL import Image

from lisa_video.clip_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.video import probe_video
from lisa_video.web.config import LimitsConfig

POSE_SUFFIX = ".npz"
DRIVER_SUFFIXES = (*VIDEO_SUFFIXES, POSE_SUFFIX)
REFERENCE_SUFFIXES = (*IMAGE_SUFFIXES, *DRIVER_SUFFIXES)
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_POSE_BYTES = 64 * 2**20  # of an unpacked pose file: minutes of several people
_LONGEST = 8  # times the shorter side: panels have one height, and would be as wide as they like


def check_driver_file(path: Path, limits: LimitsConfig) -> None:
    """Raises UserError for a file that is no video and no pose file, or beyond the limits; a video is
    decoded only in a guarded process."""
    if path.suffix.lower() not in DRIVER_SUFFIXES:
        raise UserError(f"{path}: not a driver; give a video or a pose file (.npz)")
    _check_contents(path, limits)


def check_reference_file(path: Path, limits: LimitsConfig) -> None:
    """The same for a reference, which may also be a picture; of that the header is read only."""
    if path.suffix.lower() not in REFERENCE_SUFFIXES:
        raise UserError(f"{path}: not a reference; give a picture, a video or a pose file (.npz)")
    _check_contents(path, limits)


def _check_contents(path: Path, limits: LimitsConfig) -> None:
    if path.stat().st_size > limits.upload_mb * 1e6:
        raise UserError(f"{path}: larger than {limits.upload_mb:g} MB")
    suffix = path.suffix.lower()
    seconds = 0.0
    if suffix in IMAGE_SUFFIXES:
        width, height = _image_size(path)
    elif suffix == POSE_SUFFIX:
        _check_unpacked(path)
        poses = PoseSequence.load(path, require_people=True)
        width, height, seconds = poses.width, poses.height, len(poses) / poses.fps
    else:
        info = probe_video(path)
        width, height, seconds = info.width, info.height, info.frames / info.fps
    if width * height > limits.pixels and suffix != POSE_SUFFIX:
        raise UserError(f"{path}: {width}x{height} pixels are too many here")
    if max(width, height) > _LONGEST * min(width, height):
        raise UserError(
            f"{path}: {width}x{height} pixels; one side may be {_LONGEST} times the other"
        )
    if seconds > limits.seconds:
        raise UserError(
            f"{path}: lasts {seconds:.1f} s, and at most {limits.seconds:g} s are taken here"
        )


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height, without decoding."""
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{path}: cannot be read as an image") from None


def _check_unpacked(path: Path) -> None:
    """Raises UserError for an archive that unpacks to far more than poses."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        raise UserError(f"{path}: not a pose file (.npz that lisa_video wrote)") from None
    if unpacked > _POSE_BYTES:
        raise UserError(f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, too much for poses")
