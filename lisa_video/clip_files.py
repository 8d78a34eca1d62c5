"""Clips in a folder, as other programs leave them: videos, folders of images, or arrays.

Shapes: F frames, H W pixels.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv", ".avi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ARRAY_SUFFIX = ".npy"


@dataclass(frozen=True)
class ClipInfo:
    """What a clip holds."""

    frames: int
    """Pictures, counted; no frame is repeated or left out to reach a rate."""
    width: int
    height: int
    fps: float | None
    """Average frames per second; None for images and arrays, which have none."""


def find_clips(folder: Path) -> dict[str, Path]:
    """Clips of a folder by stem, sorted: videos, `.npy` arrays and sub-folders of images.

    Other files and hidden ones are passed over. Raises UserError where the folder is missing, has
    no clip, or two clips share a stem.
    """
    clips: dict[str, Path] = {}
    for path in _entries(folder):
        if path.is_dir():
            known, stem = bool(_images(path)), path.name
        else:
            known, stem = path.suffix.lower() in (*VIDEO_SUFFIXES, ARRAY_SUFFIX), path.stem
        if known and stem in clips:
            raise UserError(f"{folder}: both {clips[stem].name} and {path.name} are clip '{stem}'")
        if known:
            clips[stem] = path
    if not clips:
        kinds = ", ".join((*VIDEO_SUFFIXES, ARRAY_SUFFIX))
        raise UserError(f"{folder}: no clip here ({kinds} or folders of images)")
    return clips


def find_poses(folder: Path) -> dict[str, Path]:
    """Pose files (`.npz`) of a folder by stem, sorted; raises UserError where there is none."""
    poses = {path.stem: path for path in _entries(folder) if path.suffix.lower() == ".npz"}
    if not poses:
        raise UserError(f"{folder}: no pose file (.npz) here")
    return poses


def read_clip(path: Path, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Frames uint8 (F, H, W, 3), RGB, of one clip from `find_clips`: all, or those at `indices`.

    Raises UserError naming the file where it cannot be read or its frames differ in size.
    """
    if path.is_dir():
        return _read_images(path, indices)
    if path.suffix.lower() == ARRAY_SUFFIX:
        frames = _open_array(path)
        return np.array(frames if indices is None else frames[list(indices)])
    from lisa_video.video import read_video

    return read_video(path, indices).frames


def probe_clip(path: Path) -> ClipInfo:
    """What one clip from `find_clips` holds; decodes at most one frame. Errors as in `read_clip`,
    where they show without decoding."""
    if path.is_dir():
        height, width = _read_images(path, [0]).shape[1:3]
        return ClipInfo(len(_images(path)), width, height, None)
    if path.suffix.lower() == ARRAY_SUFFIX:
        frames, height, width, _ = _open_array(path).shape
        return ClipInfo(frames, width, height, None)
    from lisa_video.video import probe_video

    info = probe_video(path)
    return ClipInfo(info.frames, info.width, info.height, info.fps)


def count_frames(path: Path) -> int:
    """Frames of one clip from `find_clips`, without decoding them; errors as in `probe_clip`."""
    return len(_images(path)) if path.is_dir() else probe_clip(path).frames


def clip_sha256(path: Path) -> str:
    """Hash of a clip's content; of a folder's, those of its images in their order."""
    digest = hashlib.sha256()
    for file in _images(path) if path.is_dir() else [path]:
        try:
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def iter_images(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Images of a folder one by one, uint8 (H, W, 3), RGB, in the order of the numbers in their
    names; errors as in `read_clip`."""
    return _iter_images(_images(folder))


def _read_images(folder: Path, indices: Sequence[int] | None) -> NDArray[np.uint8]:
    paths = _images(folder)
    return np.stack(list(_iter_images(paths if indices is None else [paths[i] for i in indices])))


def read_image(path: Path) -> NDArray[np.uint8]:
    """One picture, uint8 (H, W, 3), RGB; raises UserError naming the file."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UserError(f"{path}: cannot be read as an image")
    return image.astype(np.uint8, copy=False)


def _iter_images(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    first: tuple[int, ...] | None = None
    for path in paths:
        image = read_image(path)
        first = first or image.shape
        if image.shape != first:
            raise UserError(
                f"{path}: {image.shape[1]}x{image.shape[0]} pixels, "
                f"while the frames before it have {first[1]}x{first[0]}"
            )
        yield image


def _open_array(path: Path) -> NDArray[np.uint8]:
    """Mapped, so that a clip of a long array is read without the rest."""
    try:
        if not path.stat().st_size:
            raise EOFError("the file is empty")
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as a NumPy array: {error}") from None
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(
            f"{path}: holds {frames.dtype} {frames.shape}, a clip is uint8 (frames, H, W, 3)"
        )
    return frames


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Images in the order of the numbers in their names, so that 10.png follows 9.png."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    return sorted((p for p in _entries(folder) if p.suffix.lower() in IMAGE_SUFFIXES), key=key)
