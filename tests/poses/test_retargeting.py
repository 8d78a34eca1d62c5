"""Another body's limbs: what stays, what changes with what, and what a camera's view cannot spoil."""

import numpy as np
import pytest

from lisa_video.driver_config import BuildConfig
from lisa_video.errors import UserError
from lisa_video.poses.builds import fit_to_build
from lisa_video.poses.proportions import (
    ANKLES,
    AVERAGE,
    NECK,
    STATURE,
    limb_lengths,
    limb_name,
    parents,
)
from lisa_video.poses.retargeting import fit_to_reference, retarget
from lisa_video.poses.skeletons import (
    BODY,
    FACE,
    HAND_LIMBS,
    LEFT_HAND,
    LIMBS,
    OPENPOSE_18,
    RIGHT_HAND,
    SKELETONS,
)

R_WRIST, L_WRIST, NOSE = (OPENPOSE_18.index(name) for name in ("r_wrist", "l_wrist", "nose"))
HEAD = {"nose-eye": 0.04, "eye-ear": 0.05}


def person(
    seed: int = 0,
    frames: int = 40,
    joints: int = 18,
    size: float = 200.0,
    place: tuple[float, float] = (300.0, 400.0),
    lengths: dict[str, float] | None = None,
    fine: float = 0.05,
) -> np.ndarray:
    """(F, K, 3): limbs of given lengths (shares of `size`) swing in the plane of the picture, the
    lower foot always on the ground. `fine` is the size of a hand's or a face's limb."""
    rng = np.random.default_rng(seed)
    lengths = AVERAGE | HEAD | (lengths or {})
    keypoints = np.zeros((frames, joints, 3))
    keypoints[..., 2] = 1
    down = np.array([0.0, 1.0])
    for start, end in LIMBS:
        name = limb_name(end)
        rest = -down if OPENPOSE_18[end] in ("nose", "r_eye", "l_eye", "r_ear", "l_ear") else down
        swing = rng.uniform(0.2, 0.7) * np.sin(np.arange(frames) * rng.uniform(0.2, 0.6))
        angle = swing + rng.uniform(-0.3, 0.3)
        turned = np.stack([rest[0] - rest[1] * np.sin(angle), rest[1] * np.cos(angle)], axis=-1)
        keypoints[:, end, :2] = keypoints[:, start, :2] + turned * lengths[name] * size
    for hand, wrist in ((LEFT_HAND, L_WRIST), (RIGHT_HAND, R_WRIST)):
        if joints > hand.start:
            _add_fine(keypoints, rng, [(wrist, hand.start)], 0.0)
            limbs = [(hand.start + a, hand.start + b) for a, b in HAND_LIMBS]
            _add_fine(keypoints, rng, limbs, fine * size)
    if joints > FACE.start:
        _add_fine(keypoints, rng, [(NOSE, k) for k in range(FACE.start, FACE.stop)], fine * size)
    walked = np.linspace(-0.3, 0.3, frames) * size
    keypoints[..., 0] += place[0] + walked[:, None]
    keypoints[..., 1] += (place[1] - keypoints[:, ANKLES, 1].max(axis=1))[:, None]
    return keypoints.astype(np.float32)


def _add_fine(
    keypoints: np.ndarray, rng: np.random.Generator, limbs: list[tuple[int, int]], length: float
) -> None:
    for start, end in limbs:
        angle = rng.uniform(0, 6.28)
        step = np.array([np.cos(angle), np.sin(angle)]) * length
        keypoints[:, end, :2] = keypoints[:, start, :2] + step


def named_lengths(keypoints: np.ndarray) -> dict[str, float]:
    lengths = limb_lengths(keypoints)
    return {limb_name(k): lengths[k] for k in range(BODY.stop) if k != NECK}


CHILD = {"hip-knee": 0.21, "knee-ankle": 0.2, "neck-nose": 0.17, "shoulder-elbow": 0.17}


@pytest.mark.parametrize("joints", [18, 60, 128])
@pytest.mark.parametrize("seed", range(3))
def test_a_driver_that_is_its_own_reference_stays_itself(joints: int, seed: int) -> None:
    driver = person(seed, joints=joints)
    rng = np.random.default_rng(seed)
    driver[rng.random(driver.shape[:2]) < 0.15] = 0
    driver[..., 2] *= rng.uniform(0.2, 1, driver.shape[:2])
    fitted, _ = retarget(driver, fit_to_reference(driver, driver, 2.0))
    np.testing.assert_allclose(fitted, driver, atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_limbs_become_the_references(seed: int) -> None:
    driver = person(seed, joints=128)
    reference = person(seed + 10, joints=128, size=130, place=(90, 220), lengths=CHILD, fine=0.06)
    fit = fit_to_reference(driver, reference, 2.0)
    fitted, modes = retarget(driver, fit)
    wanted = limb_lengths(reference)
    np.testing.assert_allclose(limb_lengths(fitted)[BODY], wanted[BODY], rtol=1e-3)
    assert not fit.assumed and set(modes) == {"limbs"}
    # Each limb keeps its direction in every frame.
    for joint in range(128):
        start = parents(128)[joint]
        if start >= 0:
            old = driver[:, joint, :2] - driver[:, start, :2]
            new = fitted[:, joint, :2] - fitted[:, start, :2]
            cross = old[:, 0] * new[:, 1] - old[:, 1] * new[:, 0]
            np.testing.assert_allclose(cross, 0, atol=0.05)
    for part in (LEFT_HAND, RIGHT_HAND, FACE):
        middle = slice(part.start + 1, part.stop)
        ratios = limb_lengths(fitted)[middle] / limb_lengths(driver)[middle]
        np.testing.assert_allclose(ratios, 130 * 0.06 / (200 * 0.05), rtol=1e-3)


def test_feet_stand_where_the_references_stand() -> None:
    driver = person(1)
    reference = person(2, size=130, place=(90, 220), lengths=CHILD)
    fitted, _ = retarget(driver, fit_to_reference(driver, reference, 2.0))
    np.testing.assert_allclose(fitted[:, ANKLES, 1].max(axis=1), 220, atol=1e-2)
    assert np.median(fitted[:, NECK, 0]) == pytest.approx(np.median(reference[:, NECK, 0]), abs=0.1)
    # A jump is as high, in body sizes, as the driver's.
    jumping = driver.copy()
    jumping[20, :, 1] -= 50
    fit = fit_to_reference(jumping, reference, 2.0)
    jumped, _ = retarget(jumping, fit)
    assert 220 - jumped[20, ANKLES, 1].max() == pytest.approx(50 * fit.scale, abs=0.1)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_drivers_framing_does_not_matter(scale: float) -> None:
    driver, reference = person(1, joints=60), person(2, joints=60, lengths=CHILD)
    other = driver * [scale, scale, 1] + [37, -12, 0]
    results = [
        retarget(each, fit_to_reference(each, reference, 2.0))[0]
        for each in (driver, other.astype(np.float32))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=0.02)


def test_the_result_moves_and_grows_with_the_reference() -> None:
    driver, reference = person(1, joints=60), person(2, joints=60, lengths=CHILD)
    larger = (reference * [2, 2, 1] + [11, 5, 0]).astype(np.float32)
    first, second = (
        retarget(driver, fit_to_reference(driver, each, 2.0))[0] for each in (reference, larger)
    )
    np.testing.assert_allclose(first * [2, 2, 1] + [11, 5, 0], second, atol=0.02)


def test_foreshortening_of_the_moment_stays_and_spoils_no_length() -> None:
    """An arm that points at the camera half of the time, in one of two arms."""
    driver, reference = person(1), person(2, lengths=CHILD)
    elbow = OPENPOSE_18.index("r_elbow")
    shortened = driver.copy()
    step = shortened[:20, R_WRIST, :2] - shortened[:20, elbow, :2]
    shortened[:20, R_WRIST, :2] -= 0.8 * step
    plain, seen = (fit_to_reference(each, reference, 2.0) for each in (driver, shortened))
    np.testing.assert_allclose(seen.ratios, plain.ratios, rtol=1e-3)
    fitted, _ = retarget(shortened, seen)
    lengths = np.linalg.norm(fitted[:, R_WRIST, :2] - fitted[:, elbow, :2], axis=-1)
    np.testing.assert_allclose(lengths[:20] / lengths[20:].mean(), 0.2, rtol=1e-2)


def test_a_limb_foreshortened_in_the_reference_takes_the_scale() -> None:
    driver, reference = person(1), person(1, size=100)[:1]
    for joint in ANKLES:
        knee = parents(18)[joint]
        reference[0, joint, :2] = reference[0, knee, :2] + 5
    fit = fit_to_reference(driver, reference, 2.0)
    assert fit.assumed == ("knee-ankle",)
    np.testing.assert_allclose(np.delete(fit.ratios, NECK), 0.5, rtol=0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_missing_joints_stay_missing_and_nothing_is_nan(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    driver, reference = person(seed, joints=128), person(seed + 1, joints=128)[:3]
    for keypoints in (driver, reference):
        keypoints[rng.random(keypoints.shape[:2]) < share] = 0
    fitted, modes = retarget(driver, fit_to_reference(driver, reference, 2.0))
    assert np.isfinite(fitted).all() and fitted.dtype == np.float32
    np.testing.assert_array_equal(fitted[..., 2], driver[..., 2])
    assert not fitted[driver[..., 2] == 0].any()
    neck, somebody = driver[:, NECK, 2] > 0, (driver[..., 2] > 0).any(axis=1)
    if "limbs" in modes:
        assert [mode == "limbs" for mode in modes] == neck.tolist()
    assert [mode == "nobody" for mode in modes] == (~somebody).tolist()


def test_beyond_a_missing_joint_limbs_go_on() -> None:
    """A stretched arm whose elbow is not seen reaches as far as with it."""
    driver, reference = person(1), person(2, lengths=CHILD)
    shoulder, elbow = OPENPOSE_18.index("r_shoulder"), OPENPOSE_18.index("r_elbow")
    for joint, share in ((elbow, 0.2), (R_WRIST, 0.36)):
        driver[:, joint, :2] = driver[:, shoulder, :2] + np.array([share * 200, 0])
    gappy = driver.copy()
    gappy[10, elbow] = 0
    fit = fit_to_reference(driver, reference, 2.0)
    whole, _ = retarget(driver, fit)
    fitted, _ = retarget(gappy, fit)
    np.testing.assert_allclose(fitted[10, R_WRIST], whole[10, R_WRIST], atol=1e-2)


def test_too_few_joints_are_moved_and_scaled_as_a_whole() -> None:
    driver, reference = person(1), person(2, size=100)
    shoulders = [OPENPOSE_18.index(name) for name in ("neck", "r_shoulder", "l_shoulder")]
    others = np.setdiff1d(np.arange(18), shoulders)
    reference[:, others] = 0
    fit = fit_to_reference(driver, reference, 2.0)
    assert not fit.limbs
    fitted, modes = retarget(driver, fit)
    assert set(modes) == {"whole"}
    apart = fitted[:, :, :2] - fitted[:, :1, :2]
    np.testing.assert_allclose(apart, fit.scale * (driver[:, :, :2] - driver[:, :1, :2]), atol=1e-3)
    assert fit.scale == pytest.approx(0.5, rel=0.15)
    middle = np.median(fitted[:, NECK, :2], axis=0)
    np.testing.assert_allclose(middle, np.median(reference[:, NECK, :2], axis=0), atol=0.01)


def test_nothing_in_common_keeps_the_drivers_size() -> None:
    driver, reference = person(1), person(2)
    legs = [k for k, name in enumerate(OPENPOSE_18) if name[2:] in ("hip", "knee", "ankle")]
    driver[:, legs] = 0
    reference[:, np.setdiff1d(np.arange(18), legs)] = 0
    fit = fit_to_reference(driver, reference, 2.0)
    assert fit.scale == 1 and not fit.limbs
    assert np.isfinite(retarget(driver, fit)[0]).all()


def test_a_frame_without_the_neck_is_moved_as_a_whole() -> None:
    driver, reference = person(1), person(2, size=100)
    driver[7, NECK] = 0
    driver[9] = 0
    _, modes = retarget(driver, fit_to_reference(driver, reference, 2.0))
    assert modes[7] == "whole" and modes[9] == "nobody"
    assert {mode for index, mode in enumerate(modes) if index not in (7, 9)} == {"limbs"}


def test_hands_without_a_reference_follow_the_forearm() -> None:
    driver, reference = person(1, joints=60), person(2, size=100)
    fit = fit_to_reference(driver, reference, 2.0)
    assert set(fit.ratios[LEFT_HAND]) == {fit.ratios[L_WRIST]}
    fitted, _ = retarget(driver, fit)
    np.testing.assert_allclose(fitted[:, LEFT_HAND.start, :2], fitted[:, L_WRIST, :2], atol=1e-2)


# Builds.


@pytest.mark.parametrize("joints", [18, 128])
def test_a_stated_build_is_reached(joints: int) -> None:
    driver = person(1, joints=joints)
    build = BuildConfig(height=0.6, head=0.2, legs=0.45, arms=0.5, shoulders=0.2)
    fitted, _ = retarget(driver, fit_to_build(driver, build, 500))
    lengths = named_lengths(fitted)
    stature = sum(lengths[name] for name in STATURE)
    assert stature == pytest.approx(0.6 * 500, rel=1e-3)
    shares = {name: length / stature for name, length in lengths.items()}
    assert shares["neck-nose"] == pytest.approx(0.2, rel=1e-3)
    assert shares["neck-hip"] == pytest.approx(0.35, rel=1e-3)
    assert shares["hip-knee"] + shares["knee-ankle"] == pytest.approx(0.45, rel=1e-3)
    assert shares["shoulder-elbow"] + shares["elbow-wrist"] == pytest.approx(0.5, rel=1e-3)
    assert 2 * shares["neck-shoulder"] == pytest.approx(0.2, rel=1e-3)
    np.testing.assert_allclose(
        fitted[:, ANKLES, 1].max(axis=1), driver[:, ANKLES, 1].max(axis=1), atol=0.02
    )


def test_a_driver_of_whom_only_the_arms_are_seen_takes_a_build_all_the_same() -> None:
    driver = person(1)
    legs = [k for k, name in enumerate(OPENPOSE_18) if name[2:] in ("hip", "knee", "ankle")]
    driver[:, legs] = 0
    fit = fit_to_build(driver, BuildConfig(height=0.5, arms=0.4), 500)
    assert {"hip-knee", "knee-ankle", "neck-hip"} <= set(fit.assumed)
    lengths = named_lengths(retarget(driver, fit)[0])
    arm = lengths["shoulder-elbow"] + lengths["elbow-wrist"]
    assert arm == pytest.approx(0.4 * 0.5 * 500, rel=0.02)


def test_nobody_takes_no_build() -> None:
    nobody = np.zeros((3, 18, 3), np.float32)
    fitted, modes = retarget(nobody, fit_to_build(nobody, BuildConfig(height=0.5), 100))
    assert not fitted.any() and modes == ["nobody"] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"legs": 1.2}, "driving.retarget.build.legs=1.2"),
        ({"height": 0}, "build.height=0"),
        ({"head": 0.2, "torso": 0.4, "legs": 0.5}, "add up to 1.1"),
        ({"torso": 0.5, "legs": 0.5}, "nothing is left"),
    ],
)
def test_impossible_builds_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BuildConfig(**values)


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_every_joint_hangs_on_the_neck(skeleton: str) -> None:
    tree = parents(len(SKELETONS[skeleton]))
    for joint in range(len(tree)):
        steps = 0
        while joint != NECK:
            joint, steps = tree[joint], steps + 1
            assert steps < 10
