"""How closely detected poses follow the poses asked for: PCK, keypoint distance, missing joints.

Shapes: F frames, P target people, Q predicted people, K keypoints. Keypoints are (F, P, K, 3):
x, y in pixels and confidence in [0, 1], where 0 is absent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lisa_video.errors import UserError
from lisa_video.poses.skeletons import OPENPOSE_18

VISIBLE_ABOVE = 0.1
"""Target joints count above this confidence (the LISA authors' evaluation)."""

Reference = Literal["max_side", "diagonal", "torso", "head"]
"""Length that distances are divided by, of a target person in that frame. Of the box around the
visible joints: its longer side (mmpose's PCK) or its diagonal (the LISA authors' evaluation). Of the
OpenPose-18 joints: torso, from a shoulder to the hip across (Sapp & Taskar 2013), the longer of the
two; head, from neck to nose, because this skeleton has no top of the head."""

_R_SHOULDER, _L_SHOULDER, _R_HIP, _L_HIP, _NECK, _NOSE = (
    OPENPOSE_18.index(name)
    for name in ("r_shoulder", "l_shoulder", "r_hip", "l_hip", "neck", "nose")
)
_SPANS = {"torso": ((_L_SHOULDER, _R_HIP), (_R_SHOULDER, _L_HIP)), "head": ((_NECK, _NOSE),)}

_COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "neck": 0.079,  # not in COCO: between the shoulders, it takes theirs
}
OKS_SIGMAS: NDArray[np.float64] = np.array(
    [_COCO_SIGMAS[name.removeprefix("r_").removeprefix("l_")] for name in OPENPOSE_18]
)
"""(18,) spread of annotators by joint, as shares of a person's size (COCO's cocoeval.py)."""
BOX_TO_AREA = 0.53
"""Area of a person over that of the box, which mmpose takes where no segmentation is at hand."""


@dataclass(frozen=True)
class MatchedPoses:
    """Target joints, each with its distance to the same joint of the predicted person matched."""

    distances: NDArray[np.float64]
    """(F, P, K) pixels; infinite where the predicted joint is absent."""
    visible: NDArray[np.bool_]
    """(F, P, K): target joints that count."""
    lengths: NDArray[np.float64]
    """(F, P) reference length in pixels; a person with length 0 is not scored."""
    offsets: NDArray[np.float64]
    """(F, P, K, 2) pixels from the target joint to the predicted one; NaN where that is absent."""
    people: NDArray[np.intp]
    """(F, P) index of the predicted person matched, -1 for none."""

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(F, P, K): visible joints of people who have a reference length."""
        return self.visible & (self.lengths > 0)[..., None]


@dataclass(frozen=True)
class PckResult:
    """Share of correct keypoints, pooled over all frames and people."""

    value: float
    """correct / visible in [0, 1]; NaN where nothing is scored."""
    correct: int
    """Joints within the threshold."""
    visible: int
    """Joints scored."""
    per_frame: NDArray[np.float64]
    """(F,) share in each frame; NaN where nothing is scored."""
    per_joint: NDArray[np.float64]
    """(K,) share of each joint; NaN where nothing is scored."""


@dataclass(frozen=True)
class DistanceResult:
    """Mean Euclidean distance over the joints present in both, and the share of the others."""

    fraction: float
    """Mean distance in reference lengths; NaN where no joint is present in both."""
    pixels: float
    """Mean distance in pixels; NaN where no joint is present in both."""
    missing_rate: float
    """Share of the scored joints that the prediction lacks; NaN where nothing is scored."""
    present: int
    """Scored joints present in both."""
    visible: int
    """Joints scored."""


def pck(
    predicted: NDArray[np.floating],
    target: NDArray[np.floating],
    threshold: float,
    reference: Reference = "max_side",
) -> PckResult:
    """Share of the target's visible joints that the prediction has nearer than the threshold.

    `predicted` (F, Q, K, 3) and `target` (F, P, K, 3) in pixels of the same frame; `threshold` in
    reference lengths. The comparison is a strict <, as in mmpose. An absent predicted joint, and
    each joint of a target person without a match, is wrong; extra predicted people cost nothing.

    Raises UserError where the target has nobody to score or a present joint is not finite.
    """
    return matched_pck(match_poses(predicted, target, reference), threshold)


def keypoint_distance(
    predicted: NDArray[np.floating],
    target: NDArray[np.floating],
    reference: Reference = "max_side",
) -> DistanceResult:
    """Mean distance of joints present in both; arguments and errors as in `pck`."""
    return matched_distance(match_poses(predicted, target, reference))


def matched_pck(matched: MatchedPoses, threshold: float) -> PckResult:
    """PCK at `threshold` reference lengths."""
    scored = matched.scored
    correct = scored & (matched.distances < threshold * matched.lengths[..., None])
    return PckResult(
        value=float(_share(correct.sum(), scored.sum())),
        correct=int(correct.sum()),
        visible=int(scored.sum()),
        per_frame=_share(correct.sum((1, 2)), scored.sum((1, 2))),
        per_joint=_share(correct.sum((0, 1)), scored.sum((0, 1))),
    )


def matched_distance(matched: MatchedPoses) -> DistanceResult:
    """Mean distance and missing rate."""
    scored = matched.scored
    both = scored & np.isfinite(matched.distances)
    pixels = matched.distances[both]
    lengths = np.broadcast_to(matched.lengths[..., None], both.shape)[both]
    present, visible = int(both.sum()), int(scored.sum())
    return DistanceResult(
        fraction=float(_share((pixels / lengths).sum(), present)),
        pixels=float(_share(pixels.sum(), present)),
        missing_rate=float(_share(visible - present, visible)),
        present=present,
        visible=visible,
    )


def match_poses(
    predicted: NDArray[np.floating], target: NDArray[np.floating], reference: Reference
) -> MatchedPoses:
    """Match predicted to target people in each frame, where P and Q may differ.

    Hungarian assignment on the mean over the target's visible joints of min(distance / length, 1),
    where an absent joint costs 1: everything out of reach is equally bad, so that one joint thrown
    far away does not decide who is who. Errors as in `pck`.
    """
    frames, people, keypoints, _ = target.shape
    assert predicted.shape[0] == frames, (predicted.shape, target.shape)
    assert predicted.shape[2:] == (keypoints, 3), (predicted.shape, target.shape)
    target_points, target_confidence = _finite_points(target, "target")
    predicted_points, predicted_confidence = _finite_points(predicted, "predicted")

    visible = target_confidence > VISIBLE_ABOVE
    lengths = reference_lengths(target_points, visible, reference)
    if not (visible & (lengths > 0)[..., None]).any():
        raise UserError(
            f"the target poses have nobody to score: no frame of {frames} has two keypoints with "
            f"confidence above {VISIBLE_ABOVE}"
        )

    apart = target_points[:, :, None] - predicted_points[:, None]  # (F, P, Q, K, 2)
    present = predicted_confidence[:, None] > 0  # (F, 1, Q, K)
    all_distances = np.where(present, np.linalg.norm(apart, axis=-1), np.inf)
    matched = np.full((frames, people), -1)
    for frame in range(frames):
        # Someone who is absent costs nothing, and would take a prediction from someone present.
        here = np.flatnonzero(visible[frame].any(-1))
        cost = _match_cost(all_distances[frame, here], visible[frame, here], lengths[frame, here])
        rows, columns = linear_sum_assignment(cost)
        matched[frame, here[rows]] = columns
    offsets = matched_offsets(predicted, target, matched)
    distances = np.linalg.norm(offsets, axis=-1)
    return MatchedPoses(
        np.where(np.isnan(distances), np.inf, distances), visible, lengths, offsets, matched
    )


def matched_offsets(
    predicted: NDArray[np.floating], target: NDArray[np.floating], people: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(F, P, K, 2) from target to predicted joints, of the people (F, P) matched; NaN where the
    predicted joint or person is absent."""
    frames, persons, keypoints, _ = target.shape
    offsets = np.full((frames, persons, keypoints, 2), np.nan)
    for frame, person in np.argwhere(people >= 0):
        found = predicted[frame, people[frame, person]].astype(np.float64)
        apart = found[:, :2] - target[frame, person, :, :2]
        offsets[frame, person] = np.where(found[:, 2:] > 0, apart, np.nan)
    return offsets


def object_keypoint_similarity(
    distances: NDArray[np.floating], visible: NDArray[np.bool_], areas: NDArray[np.floating]
) -> NDArray[np.float64]:
    """OKS of people, as COCO's cocoeval.py: the mean over visible joints of
    exp(-d^2 / (2 s^2 k^2)), where s^2 is the person's area and k twice the joint's sigma.

    Distances (..., 18) in pixels, infinite where a joint is absent; areas (...) in square pixels.
    NaN where a person has no visible joint or no area.
    """
    spread = 2 * areas[..., None] * np.square(2 * OKS_SIGMAS)
    with np.errstate(divide="ignore", invalid="ignore"):
        similar = np.where(visible, np.exp(-np.square(distances) / spread), 0.0)
    return np.where(areas > 0, _share(similar.sum(-1), visible.sum(-1)), np.nan)


def keypoint_auc(
    distances: NDArray[np.floating], visible: NDArray[np.bool_], normaliser: float, steps: int
) -> float:
    """Area under the PCK curve, mmpose's keypoint_auc: the mean of PCK at the thresholds i / steps,
    i from 0 to steps - 1, of distances (N, K) over `normaliser` pixels; PCK is a mean over joints.
    """
    thresholds = normaliser * np.arange(steps)[:, None, None] / steps
    near = ((distances < thresholds) & visible).sum(1)  # (steps, K)
    return float(np.nanmean(_share(near, np.broadcast_to(visible.sum(0), near.shape))))


def person_areas(target: NDArray[np.floating], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(F, P) area in square pixels that OKS takes for a person: a share of the visible joints'
    box."""
    sides = _box_sides(target[..., :2].astype(np.float64), visible)
    return BOX_TO_AREA * sides.prod(-1)


def _match_cost(
    distances: NDArray[np.float64], visible: NDArray[np.bool_], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(P, Q, K) distances, (P, K) visible, (P,) lengths -> (P, Q) costs in [0, 1]."""
    reach = np.where(lengths > 0, lengths, 1.0)[:, None, None]
    capped = np.minimum(distances / reach, 1.0) * visible[:, None]
    return capped.sum(-1) / np.maximum(visible.sum(-1), 1)[:, None]


def reference_lengths(
    points: NDArray[np.float64], visible: NDArray[np.bool_], reference: Reference
) -> NDArray[np.float64]:
    """(F, P) reference length of people with joints (F, P, K, 2); 0 where it cannot be measured."""
    if reference in _SPANS:
        lengths = np.zeros(visible.shape[:2])
        for start, end in _SPANS[reference]:
            length = np.linalg.norm(points[..., start, :] - points[..., end, :], axis=-1)
            seen = visible[..., start] & visible[..., end]
            lengths = np.maximum(lengths, np.where(seen, length, 0.0))
        return lengths
    sides = _box_sides(points, visible)
    return sides.max(-1) if reference == "max_side" else np.linalg.norm(sides, axis=-1)


def _box_sides(points: NDArray[np.float64], visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(F, P, 2) width and height of the box around visible joints; 0 below two of them."""
    low = np.where(visible[..., None], points, np.inf).min(-2)
    high = np.where(visible[..., None], points, -np.inf).max(-2)
    return np.maximum(high - low, 0.0)  # -inf, of nobody, becomes 0


def _finite_points(
    keypoints: NDArray[np.floating], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F, P, K, 3) -> points (F, P, K, 2), with 0 for absent joints, and confidence (F, P, K)."""
    values = keypoints.astype(np.float64)
    confidence = values[..., 2]
    absent = confidence == 0
    points = np.where(absent[..., None], 0.0, values[..., :2])
    broken = ~(np.isfinite(points).all(-1) & np.isfinite(confidence))
    if broken.any():
        frame, person, keypoint = np.argwhere(broken)[0]
        raise UserError(
            f"the {name} poses are not finite at frame {frame}, person {person}, "
            f"keypoint {keypoint}; give an absent keypoint confidence 0"
        )
    return points, confidence


def _share(part: NDArray | float, whole: NDArray | float) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
