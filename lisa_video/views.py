"""Views: which frames and which part of a clip training sees, and how.

A view says all that is random about a clip as training sees it. It is drawn from (seed, epoch, clip
id) and what the manifest and the pose file say, never from an earlier draw, so any process can make
any view of any epoch. Each kind of draw has a stream of its own: switching one on leaves the others
as they were.

Shape legend: F frames, P people, K keypoints, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.poses import PoseSequence
from lisa_video.poses.framing import SURE
from lisa_video.windows import frame_at

Box = tuple[int, int, int, int]
"""Left, top, width and height of a part of a picture, in its pixels."""


@dataclass(frozen=True)
class View:
    """One window of one clip. Equal views of equal clips are equal pictures."""

    start: int
    """First frame, counted in the video."""
    step: float
    """Video frames from one frame of the window to the next; each place is rounded by itself."""
    frames: int
    """F."""
    box: Box
    """The part of the picture that is seen; `fit_frames` brings it to `size`."""
    size: tuple[int, int]
    """Width and height in pixels."""
    flip: bool = False
    """Seen in a mirror, after all else."""
    pose_seed: int | None = None
    """Seed of what is withheld from the condition; None withholds nothing."""

    @property
    def indices(self) -> list[int]:
        """Frames of the video, F of them."""
        return [self.start + frame_at(place, self.step) for place in range(self.frames)]

    @property
    def picture(self) -> View:
        """The view as far as pixels depend on it: the key of what is made from them."""
        return replace(self, pose_seed=None)


@dataclass(frozen=True)
class ViewKey:
    """What the draws of a view follow from."""

    seed: int
    epoch: int
    id: str

    @property
    def words(self) -> list[int]:
        """For a generator."""
        digest = int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:8], "big")
        return [self.seed, self.epoch, digest]


class Draw(IntEnum):
    """One stream of random numbers each."""

    STRIDE = 1
    FLIP = 2
    CROP = 3
    POSES = 4


# Drawing.


def draw_start(key: ViewKey, starts: int) -> int:
    """First frame of a window, one of `starts` equally likely places."""
    return int(np.random.default_rng(key.words).integers(starts))


def draw_stride(key: ViewKey, strides: Sequence[int]) -> int:
    """One of `strides`, equally likely."""
    if len(strides) == 1:
        return strides[0]
    return strides[int(_stream(key, Draw.STRIDE).integers(len(strides)))]


def draw_flip(key: ViewKey, config: AugmentationConfig) -> bool:
    """Whether the window is mirrored."""
    return config.flip > 0 and bool(_stream(key, Draw.FLIP).random() < config.flip)


def draw_pose_seed(key: ViewKey) -> int:
    """A seed for `withheld`."""
    return int(_stream(key, Draw.POSES).integers(2**63))


def draw_box(
    key: ViewKey,
    config: AugmentationConfig,
    size: tuple[int, int],
    poses: PoseSequence,
) -> Box:
    """A part of the picture, of the shape of `size` to a pixel; `poses` are the window's."""
    scale, *shifts = _stream(key, Draw.CROP).random(3)
    picture = np.array([poses.width, poses.height])
    least, most = config.crop_scale
    share = least + (most - least) * scale
    shape = np.array(size)
    extent = share * (picture / shape).min() * shape
    extent = np.clip(np.rint(extent), 1, picture)
    room = picture - extent
    corner = room / 2
    if config.crop_centre == "people":
        corner = people_centre(poses) - extent / 2
    corner = corner.clip(0, room) + config.crop_shift * (2 * np.array(shifts) - 1) * room / 2
    left, top = np.rint(corner.clip(0, room)).astype(int).tolist()
    width, height = extent.astype(int).tolist()
    return left, top, width, height


def people_centre(poses: PoseSequence) -> NDArray[np.float64]:
    """Middle (x, y) of the box around everybody's sure joints; of the picture where there is none."""
    places = poses.keypoints[poses.keypoints[..., 2] >= SURE][:, :2]
    if not len(places):
        return np.array([poses.width / 2, poses.height / 2])
    return (places.min(axis=0) + places.max(axis=0)) / 2.0


def _stream(key: ViewKey, draw: Draw) -> np.random.Generator:
    return np.random.default_rng([*key.words, draw])


# Seeing.


def cut_poses(poses: PoseSequence, box: Box, size: tuple[int, int]) -> PoseSequence:
    """The poses in the pixels of a part of the picture, brought to `size`."""
    left, top, width, height = box
    moved = poses.keypoints - np.array([left, top, 0], dtype=np.float32)
    moved[poses.keypoints[..., 2] == 0] = 0
    return fit_poses(replace(poses, keypoints=moved, width=width, height=height), size)


def cut_frames(frames: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A part of frames (F, H, W, 3), brought to `size`."""
    left, top, width, height = box
    return fit_frames(frames[:, top : top + height, left : left + width], size)


def withheld(poses: PoseSequence, config: AugmentationConfig, seed: int) -> PoseSequence:
    """The poses without some joints, each for the whole window, and without some frames.

    What is withheld has confidence 0, so that it is not drawn and `frame_weights` count it as not
    found.
    """
    rng = np.random.default_rng(seed)
    frames = rng.random(len(poses)) < config.frame_dropout
    joints = rng.random(poses.keypoints.shape[1:3]) < config.joint_dropout
    keypoints = poses.keypoints.copy()
    keypoints[frames] = 0
    keypoints[:, joints] = 0
    return replace(poses, keypoints=keypoints)


def fit_frames(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale frames until they just cover `size`, and cut out the centre; the aspect is kept.

    Args:
        frames: uint8 (F, H, W, 3).
        size: width and height in pixels.

    Returns:
        uint8 (F, size[1], size[0], 3).
    """
    height, width = frames.shape[1:3]
    covering, left, top = _fitting((width, height), size)
    if covering != (width, height):
        smaller = max(size[0] / width, size[1] / height) < 1
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        frames = np.stack([cv2.resize(frame, covering, interpolation=how) for frame in frames])
    return np.ascontiguousarray(frames[:, top : top + size[1], left : left + size[0]])


def fit_poses(poses: PoseSequence, size: tuple[int, int]) -> PoseSequence:
    """The poses of frames that `fit_frames` brings to `size`, in the pixels of the result.

    Joints beyond the cut keep their places outside of the frame, so that limbs which lead there are
    drawn rightly.
    """
    covering, left, top = _fitting((poses.width, poses.height), size)
    moved = poses.resized(*covering).keypoints - np.array([left, top, 0], dtype=np.float32)
    moved[poses.keypoints[..., 2] == 0] = 0
    return replace(poses, keypoints=moved, width=size[0], height=size[1])


def _fitting(source: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
    """Size to scale a picture to, and the left and top of what is cut out there."""
    scale = max(size[0] / source[0], size[1] / source[1])
    covering = (max(size[0], round(source[0] * scale)), max(size[1], round(source[1] * scale)))
    return covering, (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
