"""A stated build: stature and proportions in numbers, given to any driver.

Shape legend: F frames, K keypoints; one person, (F, K, 3): x, y in pixels and confidence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lisa_video.driver_config import BuildConfig
from lisa_video.poses.proportions import AVERAGE, HEAD, NECK, NOSE, STATURE, limb_lengths, limb_name
from lisa_video.poses.retargeting import Fit, anchors, complete_ratios, moved_as_a_whole
from lisa_video.poses.skeletons import BODY


def fit_to_build(driver: NDArray[np.floating], build: BuildConfig, picture_height: int) -> Fit:
    """How to give the driver (F, K, 3) a stated build, in its own place.

    Limbs that it never shows are taken for an average adult's. `picture_height` in pixels is what
    `build.height` is a share of. A driver without any limb stays as it is.
    """
    joints = driver.shape[1]
    own = limb_lengths(driver)
    origin, target, on_feet = anchors(driver, driver)
    names = {joint: limb_name(joint) for joint in range(BODY.stop) if joint != NECK}
    known = {name: own[joint] for joint, name in names.items() if np.isfinite(own[joint])}
    measured = [name for name in AVERAGE if name in known]
    if not measured:
        return moved_as_a_whole(own, 1.0, origin, target)
    unit = sum(known[name] for name in measured) / sum(AVERAGE[name] for name in measured)
    complete = {name: unit * share for name, share in AVERAGE.items()} | known
    stature = sum(complete[name] for name in STATURE)
    scale = 1.0 if build.height is None else build.height * picture_height / stature
    wanted = built_lengths(complete, build)
    ratios = np.full(joints, np.nan)
    for joint, name in names.items():
        if name in wanted:
            ratios[joint] = scale * wanted[name] / complete[name]
    ratios[HEAD] = ratios[NOSE]
    assumed = tuple(sorted(set(AVERAGE) - set(known)))
    ratios = complete_ratios(ratios, scale)
    return Fit(ratios, own, scale, origin, target, on_feet, True, assumed)


def built_lengths(lengths: dict[str, float], build: BuildConfig) -> dict[str, float]:
    """Limb lengths of the build in a body of the same stature.

    Head, torso and legs make up the stature: those that are not stated share what is left, in the
    proportion that they have.
    """
    stature = sum(lengths[name] for name in STATURE)
    upright = {
        ("neck-nose",): build.head,
        ("neck-hip",): build.torso,
        ("hip-knee", "knee-ankle"): build.legs,
    }
    stated = {limbs: share for limbs, share in upright.items() if share is not None}
    others = [limb for limbs in upright.keys() - stated.keys() for limb in limbs]
    if others:
        left = 1 - sum(stated.values())
        stated[tuple(others)] = left
    if build.arms is not None:
        stated["shoulder-elbow", "elbow-wrist"] = build.arms
    if build.shoulders is not None:
        stated["neck-shoulder",] = build.shoulders / 2
    built = dict(lengths)
    for limbs, share in stated.items():
        whole = sum(lengths[limb] for limb in limbs)
        built |= {limb: lengths[limb] * share * stature / whole for limb in limbs}
    return built
