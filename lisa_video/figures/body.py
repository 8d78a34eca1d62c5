"""The figure's skeleton: builds, forward kinematics and the 18 OpenPose keypoints in space.

Shape legend: F frames, N body points. Lengths in metres; axes as in `motion`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisa_video.figures.motion import JOINTS, MotionSample

# Bone offsets from the parent joint, DeepMimic's humanoid (pybullet_data/humanoid/humanoid.urdf at its scale 1/4).
# The last four entries are points that do not rotate by themselves.
_PARENTS = {
    "chest": "root",
    "neck": "chest",
    "right_hip": "root",
    "right_knee": "right_hip",
    "right_ankle": "right_knee",
    "right_shoulder": "chest",
    "right_elbow": "right_shoulder",
    "right_wrist": "right_elbow",
    "left_hip": "root",
    "left_knee": "left_hip",
    "left_ankle": "left_knee",
    "left_shoulder": "chest",
    "left_elbow": "left_shoulder",
    "left_wrist": "left_elbow",
}
_TORSO, _LEG, _ARM, _HIPS, _SHOULDERS = "torso", "leg", "arm", "hips", "shoulders"
_BONES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "chest": (_TORSO, (0.0, 0.236151, 0.0)),
    "neck": (_TORSO, (0.0, 0.223894, 0.0)),
    "hip": (_HIPS, (0.0, 0.0, 0.084887)),
    "knee": (_LEG, (0.0, -0.421546, 0.0)),
    "ankle": (_LEG, (0.0, -0.409870, 0.0)),
    "shoulder": (_SHOULDERS, (-0.024050, 0.243500, 0.183110)),
    "elbow": (_ARM, (0.0, -0.274788, 0.0)),
    "wrist": (_ARM, (0.0, -0.258947, 0.0)),
}
# Points of the head in the neck's frame, for a head of radius 0.1; z to the right.
_HEAD_POINTS = {
    "head": (0.01, 0.175, 0.0),
    "nose": (0.115, 0.165, 0.0),
    "right_eye": (0.095, 0.2, 0.038),
    "left_eye": (0.095, 0.2, -0.038),
    "right_ear": (0.0, 0.18, 0.1),
    "left_ear": (0.0, 0.18, -0.1),
}
_EXTREMITIES = {"toe": ("ankle", (0.15, -0.06, 0.0)), "hand": ("wrist", (0.0, -0.08, 0.0))}

POINTS = (
    *JOINTS,
    "right_wrist",
    "left_wrist",
    *_HEAD_POINTS,
    *(f"{side}_{name}" for side in ("right", "left") for name in _EXTREMITIES),
)
_INDEX = {name: index for index, name in enumerate(POINTS)}


@dataclass(frozen=True)
class Build:
    """Proportions of one figure as factors on the reference skeleton (all 1 = DeepMimic's humanoid)."""

    name: str
    """Word for the caption: "tall", "short", "sturdy", "slim" or ""."""
    leg: float = 1.0
    arm: float = 1.0
    torso: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    head: float = 1.0
    girth: float = 1.0

    def factor(self, part: str) -> float:
        return float(getattr(self, part))


def random_build(rng: np.random.Generator) -> Build:
    """Draw a build whose name says what is seen."""
    name = str(rng.choice(["tall", "short", "sturdy", "slim"]))
    length = {"tall": 1.12, "short": 0.86, "sturdy": 0.98, "slim": 1.02}[name]
    girth = {"tall": 1.0, "short": 1.0, "sturdy": 1.4, "slim": 0.78}[name]
    vary = lambda spread: float(rng.uniform(1 - spread, 1 + spread))  # noqa: E731
    return Build(
        name,
        leg=length * vary(0.06),
        arm=length * vary(0.06),
        torso=length**0.5 * vary(0.05),
        shoulders=girth**0.5 * vary(0.06),
        hips=girth**0.5 * vary(0.06),
        head=vary(0.1),
        girth=girth * vary(0.08),
    )


def body_points(motion: MotionSample, build: Build) -> np.ndarray:
    """Forward kinematics: (F, N, 3) float64 positions of `POINTS` in metres."""
    frames = len(motion.root)
    points = np.zeros((frames, len(POINTS), 3))
    world = {"root": motion.rotations[:, 0]}
    # Legs of another length keep the feet, not the pelvis, at the recorded height.
    points[:, 0] = motion.root * np.array([1.0, build.leg, 1.0])
    for name, parent in _PARENTS.items():
        part, offset = _BONES[name.split("_")[-1]]
        scaled = np.array(offset) * build.factor(part)
        if name.startswith("left_"):
            scaled = scaled * np.array([1.0, 1.0, -1.0])
        points[:, _INDEX[name]] = points[:, _INDEX[parent]] + world[parent] @ scaled
        if name in JOINTS:
            world[name] = world[parent] @ motion.rotations[:, JOINTS.index(name)]
        else:
            world[name] = world[parent]
    for name, offset in _HEAD_POINTS.items():
        points[:, _INDEX[name]] = points[:, _INDEX["neck"]] + world["neck"] @ (
            np.array(offset) * build.head
        )
    for side in ("right", "left"):
        for name, (parent, offset) in _EXTREMITIES.items():
            joint = f"{side}_{parent}"
            points[:, _INDEX[f"{side}_{name}"]] = points[:, _INDEX[joint]] + world[
                joint
            ] @ np.array(offset)
    return points


def point(points: np.ndarray, name: str) -> np.ndarray:
    """(F, N, 3) -> (F, 3): the named body point."""
    return points[:, _INDEX[name]]


_OPENPOSE_SOURCES = (
    "nose",
    None,  # neck: midpoint of the shoulders, OpenPose's convention
    *(f"right_{j}" for j in ("shoulder", "elbow", "wrist")),
    *(f"left_{j}" for j in ("shoulder", "elbow", "wrist")),
    *(f"right_{j}" for j in ("hip", "knee", "ankle")),
    *(f"left_{j}" for j in ("hip", "knee", "ankle")),
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)


def openpose_points(points: np.ndarray) -> np.ndarray:
    """(F, N, 3) body points -> (F, 18, 3) OpenPose-18 keypoints in space."""
    neck = (point(points, "right_shoulder") + point(points, "left_shoulder")) / 2
    columns = [neck if name is None else point(points, name) for name in _OPENPOSE_SOURCES]
    return np.stack(columns, axis=1)
