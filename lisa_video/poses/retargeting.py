"""A driver's motion on another body: limb by limb where enough of both is known, else moved and
scaled as a whole.

Each limb keeps its direction and its foreshortening of the moment; its length is multiplied by one
ratio for the whole sequence. Where feet are known they stay on the ground.

Shape legend: F frames, K keypoints; one person, (F, K, 3): x, y in pixels and confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lisa_video.poses.proportions import (
    ANKLES,
    HEAD,
    NECK,
    NOSE,
    limb_lengths,
    limb_name,
    outwards,
    parents,
    surely,
)
from lisa_video.poses.skeletons import BODY, FACE, LEFT_HAND, OPENPOSE_18, RIGHT_HAND

FrameMode = Literal["limbs", "whole", "nobody"]
"""What was done with a frame: limb by limb; moved and scaled as a whole, because the neck is not in
it or the limbs are not known; or nothing, because nobody is in it."""

_ELBOW_WRIST = OPENPOSE_18.index("r_wrist")  # numbers the limb, as does the left one
_LEAST_LIMBS = 3  # kinds of limbs known of both bodies, below which they are not compared
_PARTS = (LEFT_HAND, RIGHT_HAND, FACE)


@dataclass(frozen=True, eq=False)
class Fit:
    """How a body's motion is carried over to another."""

    ratios: NDArray[np.float64]
    """(K,) new length of each limb over the driver's."""
    lengths: NDArray[np.float64]
    """(K,) lengths of the driver's limbs in pixels, which weigh ratios along missing joints."""
    scale: float
    """Of paths through the picture, and of limbs that are not known of both."""
    origin: NDArray[np.float64]
    """(2,) point of the driver's picture, in pixels."""
    target: NDArray[np.float64]
    """(2,) where it comes to lie, in pixels of the new picture."""
    on_feet: bool
    """Whether the lower foot, and not the neck, takes the place that `place` gives to it."""
    limbs: bool
    """False where limbs are not known well enough, and all is moved and scaled as a whole."""
    assumed: tuple[str, ...]
    """Limbs that take the scale because one body's length is not known or not believed."""

    def place(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (..., 2) moved and scaled as a whole."""
        return self.target + self.scale * (points - self.origin)


def fit_to_reference(
    driver: NDArray[np.floating], reference: NDArray[np.floating], max_change: float
) -> Fit:
    """How to give the driver the limbs and the place of a reference.

    Args:
        driver: (F, K, 3), one person.
        reference: (F', K', 3), of any skeleton and any picture, with one frame or more.
        max_change: a limb whose ratio differs from the scale by more than this factor is taken for
            foreshortened in the reference or the driver, and takes the scale.
    """
    joints = driver.shape[1]
    own, wanted = limb_lengths(driver), np.full(joints, np.nan)
    shared = min(joints, reference.shape[1])
    wanted[:shared] = limb_lengths(reference)[:shared]
    ratios = wanted / own
    body = np.isfinite(ratios[BODY])
    body[HEAD] = False
    known = {limb_name(int(joint)) for joint in np.flatnonzero(body)}
    origin, target, on_feet = anchors(driver, reference)
    if len(known) < _LEAST_LIMBS:
        scale = _spread_ratio(driver, reference)
        return moved_as_a_whole(own, scale, origin, target)
    scale = _weighted_median(ratios[BODY][body], own[BODY][body])
    ratios = _part_ratios(own, wanted, ratios)
    believed = (ratios <= scale * max_change) & (ratios >= scale / max_change)
    assumed = {
        limb_name(joint) for joint in range(BODY.stop) if joint != NECK if not believed[joint]
    }
    ratios = complete_ratios(np.where(believed, ratios, np.nan), scale)
    return Fit(ratios, own, scale, origin, target, on_feet, True, tuple(sorted(assumed)))


def retarget(driver: NDArray[np.floating], fit: Fit) -> tuple[NDArray[np.float32], list[FrameMode]]:
    """The driver (F, K, 3) as the fit says, and what was done with each frame.

    Joints that are missing stay missing, (0, 0, 0); a limb beyond a missing joint goes on from the
    last one that is there.
    """
    present = driver[..., 2] > 0
    places = np.where(present[..., None], driver[..., :2], 0).astype(np.float64)
    moved = fit.place(places)
    if fit.limbs:
        moved = _limb_by_limb(places, present, fit)
        if fit.on_feet:
            moved[..., 1] += _foot_correction(places, present, moved, fit)[:, None]
    result = np.concatenate([moved, driver[..., 2:]], axis=-1).astype(np.float32)
    result[~present] = 0
    rooted = present[:, NECK] & fit.limbs
    modes: list[FrameMode] = [
        "nobody" if not somebody else "limbs" if with_neck else "whole"
        for somebody, with_neck in zip(present.sum(axis=1) > 0, rooted, strict=True)
    ]
    return result, modes


def _limb_by_limb(
    places: NDArray[np.float64], present: NDArray[np.bool_], fit: Fit
) -> NDArray[np.float64]:
    """New places (F, K, 2) of joints (F, K, 2), from the neck outwards.

    Along missing joints the ratio is the mean of the limbs', weighted by their lengths.
    """
    frames, joints = present.shape
    moved = fit.place(places)
    # Of each joint or, where it is missing, of the last one before it: where it was and is now, and
    # the lengths, old and new, of the limbs from there on.
    last, last_moved = places.copy(), moved.copy()
    rooted = present.copy()
    beyond = np.zeros((2, frames, joints))
    lengths = np.where(np.isfinite(fit.lengths), fit.lengths, 1.0)
    for joint in outwards(joints):
        parent = parents(joints)[joint]
        if parent < 0:
            continue
        here = present[:, joint, None]
        old = beyond[0, :, parent] + lengths[joint]
        new = beyond[1, :, parent] + lengths[joint] * fit.ratios[joint]
        step = (new / old)[:, None] * (places[:, joint] - last[:, parent])
        reached = here & rooted[:, parent, None]
        moved[:, joint] = np.where(reached, last_moved[:, parent] + step, moved[:, joint])
        last[:, joint] = np.where(here, places[:, joint], last[:, parent])
        last_moved[:, joint] = np.where(here, moved[:, joint], last_moved[:, parent])
        rooted[:, joint] |= rooted[:, parent]
        beyond[0, :, joint] = np.where(present[:, joint], 0, old)
        beyond[1, :, joint] = np.where(present[:, joint], 0, new)
    return moved


def _foot_correction(
    places: NDArray[np.float64],
    present: NDArray[np.bool_],
    moved: NDArray[np.float64],
    fit: Fit,
) -> NDArray[np.float64]:
    """Pixels (F,) to move each frame down, so that the lower foot comes to lie where it belongs; in
    frames without both feet between those of the frames around them."""
    both = present[:, ANKLES].all(axis=1)
    frames = np.flatnonzero(both)
    if not len(frames):
        return np.zeros(len(places))
    asked = fit.place(places[:, ANKLES])[..., 1].max(axis=1)
    correction = asked - moved[:, ANKLES, 1].max(axis=1)
    interpolated: NDArray[np.float64] = np.interp(
        np.arange(len(places)), frames, correction[frames]
    )
    return interpolated


def anchors(
    driver: NDArray[np.floating], reference: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Points (2,) of both pictures that belong together, and whether they stand on the ground.

    Across they are where the neck mostly is, or the joints that both have; down where the lower foot
    mostly is, where both have feet. Without a joint in common both are the middle of their joints.
    """
    places = [_usual_places(keypoints) for keypoints in (driver, reference)]
    common = [np.isfinite(place[BODY, 0]) for place in places]
    both = common[0] & common[1]
    points = []
    for place, own in zip(places, common, strict=True):
        chosen = [NECK] if both[NECK] else np.flatnonzero(both if both.any() else own)
        points.append(place[chosen].mean(axis=0) if len(chosen) else np.zeros(2))
    grounds = [_ground(keypoints) for keypoints in (driver, reference)]
    on_feet = bool(np.isfinite(grounds).all() and both[NECK])
    if on_feet:
        for point, ground in zip(points, grounds, strict=True):
            point[1] = ground
    return points[0], points[1], on_feet


def _usual_places(keypoints: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median place (K, 2) of each joint over the frames that have it; NaN where none has."""
    sure = surely(keypoints)
    places = np.full((keypoints.shape[1], 2), np.nan)
    for joint in np.flatnonzero(sure.any(axis=0)):
        places[joint] = np.median(keypoints[sure[:, joint], joint, :2].astype(np.float64), axis=0)
    return places


def _ground(keypoints: NDArray[np.floating]) -> float:
    """Where the lower foot mostly is, in pixels from the top; NaN where feet are never both seen."""
    both = surely(keypoints)[:, ANKLES].all(axis=1)
    if not both.any():
        return float("nan")
    return float(np.median(keypoints[both][:, ANKLES, 1].astype(np.float64).max(axis=1)))


def moved_as_a_whole(
    lengths: NDArray[np.float64],
    scale: float,
    origin: NDArray[np.float64],
    target: NDArray[np.float64],
) -> Fit:
    ratios = np.full(len(lengths), scale)
    return Fit(ratios, lengths, scale, origin, target, on_feet=False, limbs=False, assumed=())


def _spread_ratio(driver: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """How much larger the reference is, by the joints that both have; 1 where these do not tell."""
    places = [_usual_places(keypoints)[BODY] for keypoints in (driver, reference)]
    both = np.isfinite(places[0][:, 0]) & np.isfinite(places[1][:, 0])
    if both.sum() < 2:
        return 1.0
    spreads = [float(np.linalg.norm(place[both] - place[both].mean(axis=0))) for place in places]
    return spreads[1] / spreads[0] if min(spreads) > 0 else 1.0


def _part_ratios(
    own: NDArray[np.float64], wanted: NDArray[np.float64], ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ratios (K,) in which hands and face have one each, both hands the same, by the lengths that
    are known of both bodies."""
    result = ratios.copy()
    for part in _PARTS:
        both = np.isfinite(own[part]) & np.isfinite(wanted[part])
        result[part] = wanted[part][both].sum() / own[part][both].sum() if both.any() else np.nan
    return result


def complete_ratios(ratios: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Ratios (K,) without NaN: the body's are the scale there, those of hands and face the ratio of
    the limb that they hang on."""
    body = np.where(np.isfinite(ratios[BODY]), ratios[BODY], scale)
    result = ratios.copy()
    result[BODY] = body
    for part, limb in zip(_PARTS, (_ELBOW_WRIST, _ELBOW_WRIST, NOSE), strict=True):
        result[part] = np.where(np.isfinite(ratios[part]), ratios[part], body[limb])
    return result


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
