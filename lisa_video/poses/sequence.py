"""The poses of one video, in memory and as a file.

Shape legend: F frames, P people, K keypoints: 18, with hands 60, with the face 128.

File format, version 1: an .npz archive without pickled objects, with the arrays `version` (1),
`keypoints` float32 (F, P, K, 3) and the scalars `width`, `height`, `fps`, `skeleton`, `detector`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError
from lisa_video.poses.skeletons import BODY, SKELETONS

FORMAT_VERSION = 1
_FIELDS = ("keypoints", "width", "height", "fps", "skeleton", "detector")


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Keypoints of everyone in a video, frame by frame.

    Raises:
        UserError: when made with keypoints that `validate_keypoints` refuses, a size or frame rate
            that is not positive, or an unknown skeleton.
    """

    keypoints: NDArray[np.float32]
    """(F, P, K, 3) in the skeleton's order: x, y in pixels of the video, continuous (the centre of
    pixel i is i + 0.5), and confidence in [0, 1]; 0 is absent."""
    width: int
    """Width of the video in pixels."""
    height: int
    """Height of the video in pixels."""
    fps: float
    """Frames per second."""
    skeleton: str = "openpose18"
    """Order of the joints, one of `SKELETONS`; the first 18 are always the body's."""
    detector: str = "unknown"
    """Where the keypoints come from: a detector's name and version, or "ground-truth"."""

    def __post_init__(self) -> None:
        _validate_metadata({name: getattr(self, name) for name in _FIELDS}, "pose sequence")
        validate_keypoints(self.keypoints, "pose sequence", self.skeleton)
        assert self.keypoints.dtype == np.float32, self.keypoints.dtype

    def __len__(self) -> int:
        """Number of frames F."""
        return len(self.keypoints)

    @property
    def body(self) -> NDArray[np.float32]:
        """The keypoints without hands and face, (F, P, 18, 3): OpenPose-18, of any skeleton."""
        return self.keypoints[:, :, BODY]

    def resized(self, width: int, height: int) -> PoseSequence:
        """The poses of the same video, stretched to `width` x `height` pixels."""
        scale = np.array([width / self.width, height / self.height, 1], dtype=np.float32)
        return replace(self, keypoints=self.keypoints * scale, width=width, height=height)

    def frames(self, indices: Sequence[int]) -> PoseSequence:
        """The poses of the frames at `indices`, in that order; fps stays as it is."""
        return replace(self, keypoints=self.keypoints[list(indices)])

    def frame_weights(self) -> NDArray[np.float32]:
        """How far to trust the pose of each frame, float32 (F,) in [0, 1].

        Mean confidence over the body's joints of the most confident person; 0 where nobody was
        found.
        """
        return self.body[..., 2].mean(axis=-1).max(axis=-1, initial=0)

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write a pose file, whole or not at all.

        Raises:
            UserError: `path` exists and `overwrite` is not set, or it cannot be written.
        """
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; give another name or remove it first")
        values = {name: np.asarray(getattr(self, name)) for name in _FIELDS}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, version=FORMAT_VERSION, **values)
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | PathLike[str], *, require_people: bool = False) -> PoseSequence:
        """Read a file that `save` wrote.

        Args:
            path: pose file.
            require_people: also refuse a file in which no joint of any frame was found.

        Raises:
            UserError: no such file, not a pose file, another format version, or bad content; the
                message names the file, and the frame where it is about one.
        """
        values = _read(Path(path))
        # Checked here, so that messages name the file and the type that it holds.
        _validate_metadata(values, str(path))
        validate_keypoints(values["keypoints"], str(path), values["skeleton"])
        values["keypoints"] = values["keypoints"].astype(np.float32, copy=False)
        poses = cls(**values)
        if require_people and not poses.keypoints[..., 2].any():
            raise UserError(f"{path}: no person in any of its {len(poses)} frames")
        return poses


def validate_keypoints(keypoints: NDArray[Any], source: str, skeleton: str = "openpose18") -> None:
    """Check an array of keypoints.

    Args:
        keypoints: should be floating point (F, P, K, 3) with at least one frame.
        source: file or thing that the message is about.
        skeleton: one of `SKELETONS`, which K follows from.

    Raises:
        UserError: wrong type or shape, no frames, values that are not finite, or confidences
            outside [0, 1]; the message names the source and the first bad frame, counted from 0.
    """
    joints = len(SKELETONS[skeleton])
    well_shaped = keypoints.ndim == 4 and keypoints.shape[2:] == (joints, 3) and len(keypoints)
    if not well_shaped or not np.issubdtype(keypoints.dtype, np.floating):
        found = f"{keypoints.dtype} {keypoints.shape}"
        raise UserError(f"{source}: keypoints are {found}, not float (frames, people, {joints}, 3)")
    confidence = keypoints[..., 2]
    _refuse_frames(~np.isfinite(keypoints), source, "holds a NaN or infinite keypoint")
    bad = (confidence < 0) | (confidence > 1)
    _refuse_frames(bad, source, "has a confidence outside [0, 1]")


def _refuse_frames(bad: NDArray[np.bool_], source: str, problem: str) -> None:
    frames = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    if len(frames):
        others = f" (and {len(frames) - 1} more frames)" if len(frames) > 1 else ""
        raise UserError(f"{source}: frame {frames[0]} {problem}{others}")


def _validate_metadata(values: dict[str, Any], source: str) -> None:
    if values["skeleton"] not in SKELETONS:
        known = ", ".join(SKELETONS)
        raise UserError(f"{source}: unknown skeleton '{values['skeleton']}', known: {known}")
    if values["width"] < 1 or values["height"] < 1:
        raise UserError(f"{source}: a video of {values['width']}x{values['height']} pixels")
    if not (np.isfinite(values["fps"]) and values["fps"] > 0):
        raise UserError(f"{source}: fps is {values['fps']}, it must be positive")


def _read(path: Path) -> dict[str, Any]:
    """Fields of a pose file, scalars as Python values; raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such pose file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        MemoryError,  # a header that promises more than there is
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise UserError(f"{path}: not a pose file (.npz that lisa_video wrote)") from None
    version = arrays.get("version")
    if version is None:
        raise UserError(f"{path}: not a pose file, it has no 'version'")
    if version.shape or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: pose file of version {version}, this lisa_video reads {FORMAT_VERSION}"
        )
    missing = [name for name in _FIELDS if name not in arrays]
    if missing:
        raise UserError(f"{path}: a pose file without '{missing[0]}'")
    try:
        return {
            "keypoints": arrays["keypoints"],
            "width": int(arrays["width"]),
            "height": int(arrays["height"]),
            "fps": float(arrays["fps"]),
            "skeleton": str(arrays["skeleton"]),
            "detector": str(arrays["detector"]),
        }
    except (ValueError, TypeError):
        raise UserError(f"{path}: width, height and fps must be single numbers") from None
