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

VISIBLE_ABOVE = 0.1
"""Target joints count above this confidence (the LISA authors' evaluation)."""

Reference = Literal["max_side", "diagonal"]
"""Length that distances are divided by, of the box around a target person's visible joints in that
frame: its longer side (mmpose's PCK) or its diagonal (the LISA authors' evaluation)."""


@dataclass(frozen=True)
class MatchedPoses:
    """Target joints, each with its distance to the same joint of the predicted person matched."""

    distances: NDArray[np.float64]
    """(F, P, K) pixels; infinite where the predicted joint is absent."""
    visible: NDArray[np.bool_]
    """(F, P, K): target joints that count."""
    lengths: NDArray[np.float64]
    """(F, P) reference length in pixels; a person with length 0 is not scored."""

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
    lengths = _box_lengths(target_points, visible, reference)
    if not (visible & (lengths > 0)[..., None]).any():
        raise UserError(
            f"the target poses have nobody to score: no frame of {frames} has two keypoints with "
            f"confidence above {VISIBLE_ABOVE}"
        )

    apart = target_points[:, :, None] - predicted_points[:, None]  # (F, P, Q, K, 2)
    present = predicted_confidence[:, None] > 0  # (F, 1, Q, K)
    all_distances = np.where(present, np.linalg.norm(apart, axis=-1), np.inf)
    matched = np.full((frames, people, keypoints), np.inf)
    for frame in range(frames):
        cost = _match_cost(all_distances[frame], visible[frame], lengths[frame])
        rows, columns = linear_sum_assignment(cost)
        matched[frame, rows] = all_distances[frame, rows, columns]
    return MatchedPoses(matched, visible, lengths)


def _match_cost(
    distances: NDArray[np.float64], visible: NDArray[np.bool_], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(P, Q, K) distances, (P, K) visible, (P,) lengths -> (P, Q) costs in [0, 1]."""
    reach = np.where(lengths > 0, lengths, 1.0)[:, None, None]
    capped = np.minimum(distances / reach, 1.0) * visible[:, None]
    return capped.sum(-1) / np.maximum(visible.sum(-1), 1)[:, None]


def _box_lengths(
    points: NDArray[np.float64], visible: NDArray[np.bool_], reference: Reference
) -> NDArray[np.float64]:
    """(F, P) longer side or diagonal of the box around visible joints; 0 below two of them."""
    low = np.where(visible[..., None], points, np.inf).min(-2)
    high = np.where(visible[..., None], points, -np.inf).max(-2)
    sides = np.maximum(high - low, 0.0)  # -inf, of nobody, becomes 0
    return sides.max(-1) if reference == "max_side" else np.linalg.norm(sides, axis=-1)


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
