"""Rules of scoring poses that papers and tools use, by name, and the sums they need.

Shapes: F frames, P target people, Q predicted people, K = 18 keypoints, L thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lisa_video.errors import UserError
from lisa_video.metrics.pose import (
    VISIBLE_ABOVE,
    MatchedPoses,
    Reference,
    match_poses,
    matched_offsets,
    object_keypoint_similarity,
    person_areas,
    reference_lengths,
)

Average = Literal["joints", "each_joint", "each_frame"]

AUC_PIXELS, AUC_STEPS = 30.0, 20
"""mmpose's normaliser and number of thresholds of the area under the PCK curve."""


@dataclass(frozen=True)
class PosePreset:
    """One way to score predicted poses against those asked for."""

    name: str
    thresholds: tuple[float, ...]
    """Of PCK, in reference lengths."""
    reference: Reference
    inclusive: bool
    """Whether a joint exactly at the threshold is correct."""
    average: Average
    """What PCK is a mean over: all joints alike; each of the 18 joints; or each frame."""
    by_boxes: bool
    """People are matched by the overlap of their boxes, not by their joints' distances."""
    absent_at_origin: bool
    """A joint that was not found is compared as if it had been found at (0, 0)."""
    extra_people_cost: bool
    """Joints of predicted people without a target count as wrong."""
    source: str
    """Where the rules are written down."""


POSE_PRESETS: Mapping[str, PosePreset] = {
    preset.name: preset
    for preset in (
        PosePreset(
            "strict",
            thresholds=(0.1, 0.2),
            reference="max_side",
            inclusive=False,
            average="joints",
            by_boxes=False,
            absent_at_origin=False,
            extra_people_cost=True,
            source="this package: what is missing or too much is wrong",
        ),
        PosePreset(
            "lisa",
            thresholds=(0.2,),
            reference="diagonal",
            inclusive=True,
            average="each_frame",
            by_boxes=True,
            absent_at_origin=True,
            extra_people_cost=False,
            source="HKUST-LongGroup/LISA eval_scripts/metrics_realpose.py",
        ),
        PosePreset(
            "mmpose",
            thresholds=(0.05, 0.1, 0.2),
            reference="max_side",
            inclusive=False,
            average="each_joint",
            by_boxes=False,
            absent_at_origin=False,
            extra_people_cost=False,
            source="open-mmlab/mmpose mmpose/evaluation/functional/keypoint_eval.py",
        ),
    )
}


def pose_preset(name: str, reference: Reference | None = None) -> PosePreset:
    """The preset called `name`, or its rules with another reference length, which its name says
    then; raises UserError, which lists the known ones."""
    if name not in POSE_PRESETS:
        raise UserError(f"unknown pose preset '{name}', known: {', '.join(POSE_PRESETS)}")
    preset = POSE_PRESETS[name]
    if reference in (None, preset.reference):
        return preset
    return replace(preset, name=f"{name} by {reference}", reference=reference)


@dataclass(frozen=True, eq=False)
class PoseTally:
    """Sums over joints, people and frames, so that scores of several clips are pooled by adding."""

    preset: PosePreset
    """The rules; only tallies of the same may be added."""
    frames: int
    """Frames looked at."""
    per_joint: NDArray[np.int64]
    """(K,) target joints scored."""
    correct: NDArray[np.int64]
    """(L, K) of them within each threshold."""
    near: NDArray[np.int64]
    """(AUC_STEPS, K) of them within each threshold of the area under the curve."""
    present: int
    """Scored joints that were found."""
    distance: float
    """Sum of the found joints' distances, in reference lengths."""
    distance_px: float
    """The same sum in pixels of the clip."""
    distance_l1_px: float
    """Sum of the mean of |dx| and |dy| of found joints, in pixels."""
    extra_joints: int
    """Joints of people found without a target, where the preset lets them cost."""
    extra_people: int
    """Such people, whatever they cost."""
    people: int
    """Target people scored, once per frame."""
    similarity: float
    """Sum of their OKS."""
    scored_frames: int
    """Frames with a joint to score."""
    frame_pck: NDArray[np.float64]
    """(L,) sum of the PCK of each such frame."""
    acceleration: float
    """Sum of the norms of the second differences of offsets, in pixels."""
    accelerations: int
    """Joints with three offsets in a row."""
    jerk: float
    """Sum of the norms of the third differences of found joints, in pixels."""
    jerks: int
    """Joints found four times in a row."""

    @property
    def joints(self) -> int:
        """Target joints scored."""
        return int(self.per_joint.sum())

    def __add__(self, other: PoseTally) -> PoseTally:
        assert self.preset == other.preset, (self.preset.name, other.preset.name)
        names = [field.name for field in fields(self) if field.name != "preset"]
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def metrics(self) -> dict[str, float]:
        """The measures by name; NaN where nothing is there to be measured."""
        found: dict[str, float] = {}
        for index, threshold in enumerate(self.preset.thresholds):
            found[f"pck@{threshold:g}"] = self._pck(index)
        if self.preset.average == "each_frame":
            for index, threshold in enumerate(self.preset.thresholds):
                found[f"pck_micro@{threshold:g}"] = self._pooled(index)
        if self.preset.average == "each_joint":
            found["auc"] = float(np.mean([_mean_share(row, self.per_joint) for row in self.near]))
        return found | {
            "keypoint_distance": _ratio(self.distance, self.present),
            "keypoint_distance_px": _ratio(self.distance_px, self.present),
            "keypoint_distance_l1_px": _ratio(self.distance_l1_px, self.present),
            "missing_rate": 1 - _ratio(self.present, self.joints),
            "oks": _ratio(self.similarity, self.people),
            "extra_people": _ratio(self.extra_people, self.frames),
            "acceleration_px": _ratio(self.acceleration, self.accelerations),
            "jitter_px": _ratio(self.jerk, self.jerks),
        }

    def _pck(self, index: int) -> float:
        if self.preset.average == "each_frame":
            return _ratio(float(self.frame_pck[index]), self.scored_frames)
        if self.preset.average == "each_joint":
            return _mean_share(self.correct[index], self.per_joint)
        return self._pooled(index)

    def _pooled(self, index: int) -> float:
        return _ratio(int(self.correct[index].sum()), self.joints + self.extra_joints)


def tally_poses(
    predicted: NDArray[np.floating], target: NDArray[np.floating], preset: PosePreset
) -> PoseTally:
    """Score predicted people (F, Q, 18, 3) against those asked for, (F, P, 18, 3), of one clip.

    Raises UserError where the target has nobody to score or a present joint is not finite.
    """
    nearest = match_poses(predicted, target, preset.reference)  # also checks the values
    matched = _match_boxes(predicted, target, preset) if preset.by_boxes else nearest
    extra = _extra_joints(predicted, matched.people)
    scored = matched.visible if preset.by_boxes else matched.scored
    distances = matched.distances
    lengths = np.broadcast_to(matched.lengths[..., None], scored.shape)
    correct = np.stack(
        [
            scored & _within(distances, threshold * lengths, preset.inclusive)
            for threshold in preset.thresholds
        ]
    )
    thresholds = AUC_PIXELS * np.arange(AUC_STEPS) / AUC_STEPS
    near = np.stack([scored & (distances < threshold) for threshold in thresholds])
    both = scored & np.isfinite(distances) & (lengths > 0)
    per_frame = scored.sum((1, 2))
    has_joints = per_frame > 0
    frame_pck = correct[:, has_joints].sum((2, 3)) / per_frame[has_joints]
    similarity = object_keypoint_similarity(
        distances, matched.visible, person_areas(target, matched.visible)
    )
    # Motion is that of joints found, whatever a preset makes of the others.
    acceleration = _differences(nearest.offsets, nearest.scored, order=2)
    jerk = _differences(nearest.offsets + target[..., :2], nearest.scored, order=3)
    return PoseTally(
        preset=preset,
        frames=len(target),
        per_joint=scored.sum((0, 1)),
        correct=correct.sum((1, 2)),
        near=near.sum((1, 2)),
        present=int(both.sum()),
        distance=float((distances[both] / lengths[both]).sum()),
        distance_px=float(distances[both].sum()),
        distance_l1_px=float(np.abs(matched.offsets[both]).mean(-1).sum()),
        extra_joints=int(extra.sum()) if preset.extra_people_cost else 0,
        extra_people=int((extra > 0).sum()),
        people=int(np.isfinite(similarity).sum()),
        similarity=float(np.nansum(similarity)),
        scored_frames=int(has_joints.sum()),
        frame_pck=frame_pck.sum(1),
        acceleration=float(acceleration.sum()),
        accelerations=len(acceleration),
        jerk=float(jerk.sum()),
        jerks=len(jerk),
    )


def frame_pck(
    predicted: NDArray[np.floating], target: NDArray[np.floating], preset: PosePreset
) -> NDArray[np.float64]:
    """(F,) PCK of each frame at the last threshold, NaN where it has nothing to score."""
    values = []
    for frame in range(len(target)):
        try:
            tally = tally_poses(predicted[frame : frame + 1], target[frame : frame + 1], preset)
        except UserError:  # nobody in this frame
            values.append(math.nan)
        else:
            values.append(tally.metrics()[f"pck@{preset.thresholds[-1]:g}"])
    return np.array(values)


def _match_boxes(
    predicted: NDArray[np.floating], target: NDArray[np.floating], preset: PosePreset
) -> MatchedPoses:
    """Hungarian assignment on 1 - IoU of the boxes around all joints with a confidence; people
    whose boxes do not meet are not matched."""
    matched = np.full(target.shape[:2], -1)
    for frame, (asked, found) in enumerate(zip(target, predicted, strict=True)):
        people = np.flatnonzero((asked[..., 2] > 0).any(-1))
        others = np.flatnonzero((found[..., 2] > 0).any(-1))
        cost = np.array([[1 - _box_iou(asked[i], found[j]) for j in others] for i in people])
        if cost.size:
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] < 1:
                    matched[frame, people[row]] = others[column]
    if preset.absent_at_origin:
        there = (predicted[..., 2:] > 0).any(-2, keepdims=True)
        points = np.where(predicted[..., 2:] > 0, predicted[..., :2], 0.0)
        confidence = np.where(there, 1.0, 0.0)
        predicted = np.concatenate(
            [points, np.broadcast_to(confidence, predicted[..., 2:].shape)], axis=-1
        )
    offsets = matched_offsets(predicted, target, matched)
    distances = np.linalg.norm(offsets, axis=-1)
    points = target[..., :2].astype(np.float64)
    lengths = reference_lengths(points, target[..., 2] > 0, preset.reference)
    return MatchedPoses(
        np.where(np.isnan(distances), np.inf, distances),
        target[..., 2] > VISIBLE_ABOVE,
        lengths,
        offsets,
        matched,
    )


def _box_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Overlap of the boxes around two people's joints (K, 3) with a confidence."""
    boxes = []
    for joints in (first, second):
        points = joints[joints[:, 2] > 0, :2].astype(np.float64)
        boxes.append((points.min(0), points.max(0)))
    (low1, high1), (low2, high2) = boxes
    overlap = np.maximum(np.minimum(high1, high2) - np.maximum(low1, low2), 0).prod()
    union = (high1 - low1).prod() + (high2 - low2).prod() - overlap
    return float(overlap / (union + 1e-9))


def _extra_joints(predicted: NDArray[np.floating], people: NDArray[np.intp]) -> NDArray[np.int64]:
    """(F, Q) joints of predicted people whom nobody of `people` (F, P) was matched with."""
    joints = (predicted[..., 2] > 0).sum(-1)
    for frame, matched in enumerate(people):
        joints[frame, matched[matched >= 0]] = 0
    return joints


def _within(
    distances: NDArray[np.float64], limits: NDArray[np.float64], inclusive: bool
) -> NDArray[np.bool_]:
    return distances <= limits if inclusive else distances < limits


def _differences(
    values: NDArray[np.float64], counted: NDArray[np.bool_], order: int
) -> NDArray[np.float64]:
    """Norms of the differences of `order` in time of (F, P, K, 2), where all frames count and are
    finite; one row."""
    usable = np.where(counted[..., None], values, np.nan)
    norms = np.linalg.norm(np.diff(usable, n=order, axis=0), axis=-1)
    return norms[np.isfinite(norms)]


def _ratio(part: Any, whole: int) -> float:
    return float(part / whole) if whole else math.nan


def _mean_share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    """Mean over joints of part / whole, of the joints that occur."""
    occurring = whole > 0
    return float((part[occurring] / whole[occurring]).mean()) if occurring.any() else math.nan
