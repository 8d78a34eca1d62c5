"""Who is who from frame to frame, and whom a clip is about.

Shape legend: F frames, Q people of one frame, T tracks, K keypoints, of which 18 are the body's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lisa_video.extraction_config import PeopleConfig
from lisa_video.poses.skeletons import BODY

_FAR = 0.5  # distance of joints, in diagonals of the person's box, that is no likeness at all
_LEAST_LIKENESS = 0.2  # below which two poses are taken for two people


@dataclass
class _Tracked:
    """A person who is followed."""

    column: int
    last_seen: int
    joints: NDArray[np.float32]


def track_people(frames: Sequence[NDArray[np.float32]], max_gap: int) -> NDArray[np.float32]:
    """Give each person a column of their own.

    Each frame's people are assigned to those followed so far (Hungarian method) by how alike they
    are, see `likeness`; the others begin new columns.

    Args:
        frames: people found in each of F >= 1 frames, (Q, K, 3) with Q of its own.
        max_gap: frames for which a person may be missing and still be followed.

    Returns:
        float32 (F, T, K, 3), zeros where somebody is not seen.
    """
    followed: list[_Tracked] = []
    columns: list[dict[int, NDArray[np.float32]]] = []
    for number, people in enumerate(frames):
        people = people[(people[:, BODY, 2] > 0).any(axis=-1)]
        followed = [track for track in followed if number - track.last_seen <= max_gap + 1]
        known = _assign(followed, people)
        for place, joints in enumerate(people):
            if place in known:
                track = known[place]
                track.last_seen, track.joints = number, joints
            else:
                track = _Tracked(len(columns), number, joints)
                followed.append(track)
                columns.append({})
            columns[track.column][number] = joints
    tracks = np.zeros((len(frames), len(columns), *frames[0].shape[1:]), np.float32)
    for column, seen in enumerate(columns):
        for number, joints in seen.items():
            tracks[number, column] = joints
    return tracks


def likeness(before: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """How alike two poses (K, 3) are, 0 to 1: half the overlap of the boxes around their bodies
    (IoU), half the closeness of the joints that both have."""
    before, now = before[BODY], now[BODY]
    first, second = _box(before), _box(now)
    both = (before[:, 2] > 0) & (now[:, 2] > 0)
    closeness = 0.0
    diagonal = float(np.hypot(*(first[2:] - first[:2])))
    if both.any() and diagonal > 0:
        distance = np.linalg.norm(before[both, :2] - now[both, :2], axis=-1).mean()
        closeness = max(0.0, 1 - float(distance) / (_FAR * diagonal))
    return (_overlap(first, second) + closeness) / 2


def prominence(tracks: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Size x confidence x duration of each track (F, T, K, 3), float64 (T,).

    It is the sum over frames of the share of the picture, `size` (width, height), that the body's
    box takes, times the body's mean confidence.
    """
    width, height = size
    boxes = np.array([[_box(joints) for joints in frame[:, BODY]] for frame in tracks])
    boxes = boxes.reshape(*tracks.shape[:2], 4)
    sides = boxes[..., 2:] - boxes[..., :2]
    shares = sides.prod(axis=-1) / (width * height)
    return (shares * tracks[:, :, BODY, 2].mean(axis=-1)).sum(axis=0)


def main_people(
    tracks: NDArray[np.float32], size: tuple[int, int], config: PeopleConfig
) -> tuple[NDArray[np.float32], str]:
    """The people whom a clip is about.

    Args:
        tracks: (F, T, K, 3).
        size: width and height of the video in pixels.
        config: who is good enough, and how many are kept.

    Returns:
        float32 (F, P, K, 3), P <= keep, the most prominent first; and, where P is 0, why the most
        prominent of all is not good enough.
    """
    order = np.argsort(-prominence(tracks, size), kind="stable")
    flaws = [_flaw(tracks[:, column], size[1], config) for column in order]
    good = [column for column, flaw in zip(order, flaws, strict=True) if not flaw]
    reason = "" if good else flaws[0] if flaws else "nobody was found"
    return tracks[:, good[: config.keep]], reason


def _flaw(track: NDArray[np.float32], height: int, config: PeopleConfig) -> str:
    """Why a person (F, K, 3) is not kept, or nothing."""
    body = track[:, BODY]
    seen: NDArray[np.bool_] = np.any(body[..., 2] > 0, axis=-1)
    if seen.mean() < config.min_presence:
        return (
            f"its main person is in {seen.sum()} of {len(seen)} frames, a share under "
            f"people.min_presence={config.min_presence}"
        )
    boxes = np.array([_box(joints) for joints in body[seen]])
    share = float(np.median(boxes[:, 3] - boxes[:, 1])) / height
    if share < config.min_height:
        return (
            f"its main person is {share:.3f} of the picture's height, under "
            f"people.min_height={config.min_height}"
        )
    confidence = float(body[seen][..., 2].mean())
    if confidence < config.min_confidence:
        return (
            f"its main person has a mean confidence of {confidence:.3f}, under "
            f"people.min_confidence={config.min_confidence}"
        )
    return ""


def _assign(followed: Sequence[_Tracked], people: NDArray[np.float32]) -> dict[int, _Tracked]:
    """Place among the people of a frame -> whom it is."""
    if not followed or not len(people):
        return {}
    alike = np.array([[likeness(track.joints, joints) for joints in people] for track in followed])
    pairs = zip(*linear_sum_assignment(-alike), strict=True)
    return {
        int(place): followed[row] for row, place in pairs if alike[row, place] >= _LEAST_LIKENESS
    }


def _box(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Left, top, right and bottom of the joints (18, 3) that were found; zeros without any."""
    found = joints[joints[:, 2] > 0, :2]
    if not len(found):
        return np.zeros(4, np.float32)
    return np.concatenate([found.min(axis=0), found.max(axis=0)])


def _overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(sides.clip(min=0).prod())
    areas = [float((box[2:] - box[:2]).prod()) for box in (first, second)]
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0
