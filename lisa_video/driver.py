"""From the poses of a driver to those that a subject is asked to follow: whom, smoothed, and with whose
limbs.

Shape legend: F frames, P people, K keypoints, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lisa_video.clip_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_image
from lisa_video.detectors import PoseDetector, build_detector, check_detector
from lisa_video.detectors.base import pad_people
from lisa_video.driver_config import Person, RetargetConfig
from lisa_video.errors import UserError
from lisa_video.extraction.people import prominence, track_people
from lisa_video.extraction.smoothing import refine_motion
from lisa_video.extraction_config import PeopleConfig, SmoothingConfig
from lisa_video.poses import PoseSequence
from lisa_video.poses.builds import fit_to_build
from lisa_video.poses.proportions import NECK, limb_name
from lisa_video.poses.retargeting import Fit, FrameMode, fit_to_reference, retarget
from lisa_video.poses.skeletons import BODY, OPENPOSE_18, SKELETONS

BYSTANDER = 0.2
"""Share of the main person's prominence (size x confidence x duration) below which others are taken for
passers-by and not counted."""

Mode = Literal["kept"] | FrameMode
_MODE_WORDS: dict[Mode, str] = {
    "kept": "as they are",
    "limbs": "fitted limb by limb",
    "whole": "moved and scaled as a whole",
    "nobody": "with nobody",
}


@dataclass(frozen=True)
class FrameRecord:
    """What was done with the pose of one frame."""

    mode: Mode
    """As in `retarget`; "kept" without retargeting."""
    missing: tuple[str, ...]
    """Joints of the body that the pose does not have."""
    filled: tuple[str, ...]
    """Joints of the body that were missing and lie between their places before and after."""


@dataclass(frozen=True)
class DriverRecord:
    """What was done with a driver, as it is written beside a video."""

    people: int
    """People counted in it, of whom `person` is followed."""
    person: Person
    scale: float | None
    """Of paths through the picture; None without retargeting, and so are the others."""
    limbs: dict[str, float] | None
    """New length of each limb over the driver's."""
    assumed: tuple[str, ...] | None
    """Limbs that take the scale, or an average adult's length, as theirs is not known or not
    believed."""
    frames: tuple[FrameRecord, ...]
    """One for each frame of the result."""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """One line for the user, of the frames and how each was treated."""
        modes = [record.mode for record in self.frames]
        parts = [f"{modes.count(mode)} {_MODE_WORDS[mode]}" for mode in dict.fromkeys(modes)]
        parts[0] = parts[0].replace(" ", " frames ", 1)
        filled = sum(len(record.filled) for record in self.frames)
        line = f"driver: {', '.join(parts)}"
        line += f"; {filled} joints filled in" if filled else ""
        return line + (f"; lengths assumed: {', '.join(self.assumed)}" if self.assumed else "")


@dataclass(frozen=True, eq=False)
class FittedDriver:
    """Poses to follow, and how they came about."""

    poses: PoseSequence
    record: DriverRecord


def check_driver(retargeting: RetargetConfig, detector: str) -> None:
    """Raises UserError for what can be told of the reference before detecting."""
    path = retargeting.reference
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix == ".npz":
        _reference_frames(retargeting, PoseSequence.load(path, require_people=True), path)
        return
    check_detector(detector)
    if suffix not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        raise UserError(f"{path}: a reference is a pose file (.npz), a picture or a video")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if suffix in VIDEO_SUFFIXES and retargeting.frame is None:
        raise UserError(f"{path}: of a video say which frame: driving.retarget.frame")


def fit_driver(
    poses: PoseSequence,
    person: Person,
    smoothing: SmoothingConfig,
    retargeting: RetargetConfig,
    detector: str,
    source: Path,
) -> FittedDriver:
    """The poses of one person, or of all, with gaps filled, smoothed, and fitted to a reference or a
    build.

    Args:
        poses: of the driver's frames.
        person: whom to follow, see `chosen_people`.
        smoothing: as in the extraction of poses; a cutoff and a gap of 0 change nothing.
        retargeting: whose limbs and place; the result then lies in the reference's picture.
        detector: of the reference where that is no pose file.
        source: file that messages are about.

    Raises:
        UserError: as `chosen_people` and `reference_poses`; several people are to be fitted.
    """
    chosen, people = chosen_people(poses, person, source)
    refined = replace(chosen, keypoints=refine_motion(chosen.keypoints, chosen.fps, smoothing))
    fit: Fit | None = None
    modes: list[Mode] = ["kept"] * len(refined)
    fitted = refined
    if retargeting.wanted:
        if refined.keypoints.shape[1] != 1:
            raise UserError(f"{source}: one person can be retargeted; choose one by driving.person")
        fitted, fit, modes = _retargeted(refined, retargeting, detector)
    frames = tuple(
        FrameRecord(mode, _names(absent), _names(filled))
        for mode, absent, filled in zip(modes, *_absent_and_filled(chosen, refined), strict=True)
    )
    record = DriverRecord(people, person, *_described(fit), frames)
    return FittedDriver(fitted, record)


def chosen_people(poses: PoseSequence, person: Person, source: Path) -> tuple[PoseSequence, int]:
    """The poses of one person, (F, 1, K, 3), or of all as they are; and how many people there are.

    People are followed from frame to frame and numbered from 0, the most prominent first. "only"
    expects one, beside passers-by.

    Raises:
        UserError: there are more people than expected, or fewer than the number given.
    """
    if person == "all" or poses.keypoints.shape[1] <= 1:
        count = int((poses.keypoints[..., 2] > 0).any(axis=(0, 2)).sum())
        if person not in ("only", "all", 0):
            raise UserError(f"driving.person={person}: {source} shows 1 person, whose number is 0")
        return poses, count
    tracks = track_people(list(poses.keypoints), PeopleConfig().max_gap)
    prominent = prominence(tracks, (poses.width, poses.height))
    order = np.argsort(-prominent, kind="stable")
    count = int((prominent >= BYSTANDER * prominent.max(initial=0)).sum())
    if person == "only" and count > 1:
        raise UserError(
            f"{source}: shows {count} people, and one is expected; choose one by driving.person=0, "
            f"the most prominent, to {count - 1}, or take them all by driving.person=all"
        )
    number = 0 if person == "only" else person
    assert isinstance(number, int)
    if number >= len(order) and number > 0:
        raise UserError(
            f"driving.person={number}: {source} shows {len(order)} people, numbered from 0"
        )
    return replace(poses, keypoints=tracks[:, order[number : number + 1]]), count


def stream_poses(
    frames: Iterable[NDArray[np.uint8]], size: tuple[int, int], fps: float, detector: PoseDetector
) -> PoseSequence:
    """The poses of a video's frames, uint8 (H, W, 3), one of which is held at a time; `size` is their
    width and height."""
    keypoints = pad_people(list(detector.stream(frames)), len(SKELETONS[detector.skeleton]))
    return PoseSequence(keypoints, *size, fps, skeleton=detector.skeleton, detector=detector.name)


def reference_poses(retargeting: RetargetConfig, detector: str) -> PoseSequence:
    """The reference's one person, (F, 1, K, 3).

    Raises:
        UserError: the file cannot be read, or shows nobody or several people.
    """
    path = retargeting.reference
    assert path is not None
    if path.suffix.lower() == ".npz":
        stored = PoseSequence.load(path, require_people=True)
        poses = _reference_frames(retargeting, stored, path)
    else:
        picture = _picture(path, retargeting.frame)
        size = (picture.shape[1], picture.shape[0])
        poses = stream_poses([picture], size, 1.0, build_detector(detector))
    if not poses.keypoints[..., 2].any():
        raise UserError(f"{path}: nobody is found in this reference, see driving.retarget.frame")
    one, people = chosen_people(poses, 0, path)
    if people > 1:
        raise UserError(f"{path}: shows {people} people; a reference shows one, so cut it out")
    return one


def _retargeted(
    poses: PoseSequence, retargeting: RetargetConfig, detector: str
) -> tuple[PoseSequence, Fit, list[Mode]]:
    driver, picture = poses.keypoints[:, 0], (poses.width, poses.height)
    if retargeting.reference is None:
        fit = fit_to_build(driver, retargeting.build, poses.height)
    else:
        reference = reference_poses(retargeting, detector)
        picture = (reference.width, reference.height)
        fit = fit_to_reference(driver, reference.keypoints[:, 0], retargeting.max_change)
    moved, modes = retarget(driver, fit)
    width, height = picture
    return replace(poses, keypoints=moved[:, None], width=width, height=height), fit, [*modes]


def _reference_frames(retargeting: RetargetConfig, poses: PoseSequence, path: Path) -> PoseSequence:
    if retargeting.frame is None:
        return poses
    if retargeting.frame >= len(poses):
        raise UserError(
            f"driving.retarget.frame={retargeting.frame}: {path} has {len(poses)} frames"
        )
    return poses.frames([retargeting.frame])


def _picture(path: Path, frame: int | None) -> NDArray[np.uint8]:
    """A picture, or a frame of a video, uint8 (H, W, 3)."""
    from lisa_video.video import read_video

    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path)
    assert frame is not None
    picture: NDArray[np.uint8] = read_video(path, [frame]).frames[0]
    return picture


def _absent_and_filled(
    before: PoseSequence, after: PoseSequence
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Joints of the body (F, 18) that nobody has, and those that smoothing has filled."""
    had, has = (np.max(poses.body[..., 2], axis=1, initial=0) > 0 for poses in (before, after))
    return ~has, has & ~had


def _names(joints: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(OPENPOSE_18[joint] for joint in np.flatnonzero(joints))


def _described(
    fit: Fit | None,
) -> tuple[float | None, dict[str, float] | None, tuple[str, ...] | None]:
    """Scale, ratios by limb and assumed limbs of a fit."""
    if fit is None:
        return None, None, None
    body = (joint for joint in range(BODY.stop) if joint != NECK)
    limbs = {limb_name(joint): round(float(fit.ratios[joint]), 4) for joint in body}
    return round(fit.scale, 4), limbs, fit.assumed
