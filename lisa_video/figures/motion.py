"""Human motion for the figures: motion capture in DeepMimic's format, and procedural motion.

Shape legend: T recorded frames, F sampled frames, J = 13 rotating joints. World axes: +x forward, +y up, +z the
figure's right; lengths in metres, angles in radians, quaternions (w, x, y, z).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lisa_video.errors import UserError

# The order in which DeepMimic writes its joints; knees and elbows are hinges about +z with one number.
JOINTS = (
    "root",
    "chest",
    "neck",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_shoulder",
    "right_elbow",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_shoulder",
    "left_elbow",
)
_HINGES = frozenset({"right_knee", "right_elbow", "left_knee", "left_elbow"})
_NUMBERS_PER_FRAME = 1 + 3 + sum(1 if joint in _HINGES else 4 for joint in JOINTS)  # 44

# What each recording shows, as captions put it. "getup" recordings start lying on the ground.
MOCAP_ACTIONS = {
    "backflip": "doing a backflip",
    "cartwheel": "doing a cartwheel",
    "crawl": "crawling",
    "dance_a": "dancing",
    "dance_b": "dancing",
    "getup_facedown": "getting up",
    "getup_faceup": "getting up",
    "jump": "jumping",
    "kick": "kicking",
    "punch": "punching",
    "roll": "rolling",
    "run": "running",
    "spin": "spinning",
    "spinkick": "doing a spin kick",
    "walk": "walking",
}


@dataclass(frozen=True)
class MotionSample:
    """Joint rotations and root positions at F instants.

    Attributes:
        root: (F, 3) float64, position of the pelvis in metres.
        rotations: (F, 13, 3, 3) float64, rotation of each joint relative to its parent.
    """

    root: np.ndarray
    rotations: np.ndarray


@dataclass(frozen=True)
class Motion:
    """A motion that can be sampled at any instant.

    Attributes:
        name: unique name; recordings are "mocap/<name>".
        action: words for a caption, e.g. "walking".
        duration: length in seconds.
        sample: instants in seconds, (F,) -> MotionSample.
    """

    name: str
    action: str
    duration: float
    sample: Callable[[np.ndarray], MotionSample]


def load_mocap(folder: Path) -> dict[str, Motion]:
    """Read every `humanoid3d_*.txt` of `folder` (DeepMimic's format: JSON with 44 numbers a frame).

    Raises:
        UserError: a file is missing, is not JSON or has another number of columns.
    """
    paths = sorted(folder.glob("humanoid3d_*.txt"))
    if not paths:
        raise UserError(f"{folder}: no humanoid3d_*.txt motion files; fetch the 'motions' asset")
    motions = (_read_recording(path) for path in paths)
    return {motion.name.removeprefix("mocap/"): motion for motion in motions}


def _read_recording(path: Path) -> Motion:
    try:
        content = json.loads(path.read_text())
        frames = np.asarray(content["Frames"], dtype=np.float64)
        loops = content["Loop"] == "wrap"
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a DeepMimic motion file ({error})") from None
    if frames.ndim != 2 or frames.shape[1] != _NUMBERS_PER_FRAME:
        raise UserError(
            f"{path}: frames of shape {frames.shape}, expected (T, {_NUMBERS_PER_FRAME})"
        )
    name = path.stem.removeprefix("humanoid3d_")
    step = float(frames[0, 0])
    root, quaternions = frames[:, 1:4], _quaternions(frames[:, 4:])
    if loops:
        root, quaternions = _unroll(root, quaternions)
    duration = step * (len(root) - 1)

    def sample(times: np.ndarray) -> MotionSample:
        position = np.clip(times / step, 0, len(root) - 1)
        before = np.minimum(position.astype(int), len(root) - 2)
        share = (position - before)[:, None]
        rotation = _blend(quaternions[before], quaternions[before + 1], share[..., None])
        return MotionSample(
            root=(1 - share) * root[before] + share * root[before + 1],
            rotations=_matrices(rotation),
        )

    return Motion(f"mocap/{name}", MOCAP_ACTIONS.get(name, "moving"), duration, sample)


def _quaternions(columns: np.ndarray) -> np.ndarray:
    """(T, 40) columns -> (T, 13, 4) unit quaternions, signs made continuous in time."""
    result = np.zeros((len(columns), len(JOINTS), 4))
    at = 0
    for index, joint in enumerate(JOINTS):
        if joint in _HINGES:
            half = columns[:, at] / 2
            result[:, index, 0], result[:, index, 3] = np.cos(half), np.sin(half)
            at += 1
        else:
            result[:, index] = columns[:, at : at + 4]
            at += 4
    result /= np.linalg.norm(result, axis=-1, keepdims=True)  # the files are not exactly unit
    return result


def _unroll(root: np.ndarray, quaternions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat a looping recording until it lasts at least 120 frames, carrying the root forward."""
    repeats = max(1, -(-120 // (len(root) - 1)))
    stride = (root[-1] - root[0]) * np.array([1.0, 0.0, 1.0])
    cycles = [root[:-1] + cycle * stride for cycle in range(repeats)]
    return np.concatenate(cycles), np.concatenate([quaternions[:-1]] * repeats)


def _blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Normalised linear blend of unit quaternions along the shorter arc; exact enough at 24 to 60 Hz."""
    sign = np.where((first * second).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    blended = (1 - share) * first + share * sign * second
    return blended / np.linalg.norm(blended, axis=-1, keepdims=True)


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    flat = quaternions.reshape(-1, 4)
    matrices = Rotation.from_quat(flat, scalar_first=True).as_matrix()
    return matrices.reshape(*quaternions.shape[:-1], 3, 3)


# Procedural motion: Euler angles (x abduction, y twist, z flexion) of each joint as functions of time.

_HIP_HEIGHT = 0.85  # of the reference skeleton, metres


def procedural_motion(rng: np.random.Generator) -> Motion:
    """Draw one of the procedural actions with random amplitudes, speeds and phases."""
    action = list(_PROCEDURES)[rng.integers(len(_PROCEDURES))]
    angles_at = _PROCEDURES[action](rng)

    def sample(times: np.ndarray) -> MotionSample:
        angles = np.zeros((len(times), len(JOINTS), 3))
        for joint, value in angles_at(times).items():
            angles[:, JOINTS.index(joint)] = np.stack(
                np.broadcast_arrays(*(np.asarray(part, dtype=float) for part in value), times)[:3],
                axis=-1,
            )
        matrices = Rotation.from_euler("xyz", angles.reshape(-1, 3)).as_matrix()
        root = np.zeros((len(times), 3))
        # Bent knees lower the pelvis so that the feet stay near the ground.
        bend = np.minimum(np.abs(angles[:, 4, 2]), np.abs(angles[:, 9, 2])) / 2
        root[:, 1] = _HIP_HEIGHT - 0.83 * (1 - np.cos(bend))
        return MotionSample(root, matrices.reshape(len(times), len(JOINTS), 3, 3))

    return Motion(f"procedural/{action}", action, 10.0, sample)


_Angles = Callable[[np.ndarray], dict[str, tuple[object, object, object]]]


def _wave(
    rng: np.random.Generator, hertz: tuple[float, float]
) -> Callable[[np.ndarray], np.ndarray]:
    rate, phase = rng.uniform(*hertz), rng.uniform(0, 2 * np.pi)
    return lambda times: np.sin(2 * np.pi * rate * times + phase)


def _drift(rng: np.random.Generator, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """A smooth random path in [low, high]: three sinusoids squashed."""
    waves = [_wave(rng, (0.1, 0.8)) for _ in range(3)]
    return lambda times: low + (high - low) * (0.5 + 0.5 * np.tanh(sum(w(times) for w in waves)))


def _waving(rng: np.random.Generator) -> _Angles:
    side = rng.choice(["right", "left"])
    sign = 1.0 if side == "right" else -1.0
    swing, lift = _wave(rng, (0.8, 2.0)), rng.uniform(1.9, 2.7)
    return lambda t: {
        f"{side}_shoulder": (-sign * lift, 0, 0),
        f"{side}_elbow": (-sign * (0.3 + 0.45 * swing(t)), 0, 0),
    }


def _raising_arms(rng: np.random.Generator) -> _Angles:
    swing, reach = _wave(rng, (0.3, 1.0)), rng.uniform(1.0, 1.35)
    return lambda t: {
        "right_shoulder": (-reach * (1 + swing(t)), 0, 0),
        "left_shoulder": (reach * (1 + swing(t)), 0, 0),
    }


def _squatting(rng: np.random.Generator) -> _Angles:
    swing, depth = _wave(rng, (0.3, 0.9)), rng.uniform(0.6, 0.95)
    arms = rng.uniform(0.5, 1.6)
    return lambda t: {
        **{f"{s}_hip": (0, 0, depth * (1 + swing(t))) for s in ("right", "left")},
        **{f"{s}_knee": (0, 0, -2 * depth * (1 + swing(t))) for s in ("right", "left")},
        **{f"{s}_shoulder": (0, 0, arms * (1 + swing(t)) / 2) for s in ("right", "left")},
        "chest": (0, 0, -0.25 * (1 + swing(t))),
    }


def _marching(rng: np.random.Generator) -> _Angles:
    swing, lift, arms = _wave(rng, (0.6, 1.4)), rng.uniform(0.7, 1.4), rng.uniform(0.4, 1.0)
    up, down = (lambda t: np.maximum(swing(t), 0)), (lambda t: np.maximum(-swing(t), 0))
    return lambda t: {
        "right_hip": (0, 0, lift * up(t)),
        "right_knee": (0, 0, -1.3 * lift * up(t)),
        "left_hip": (0, 0, lift * down(t)),
        "left_knee": (0, 0, -1.3 * lift * down(t)),
        "right_shoulder": (0, 0, -arms * swing(t)),
        "left_shoulder": (0, 0, arms * swing(t)),
        "right_elbow": (0, 0, 0.5),
        "left_elbow": (0, 0, 0.5),
    }


def _jumping_jack(rng: np.random.Generator) -> _Angles:
    swing, reach = _wave(rng, (0.5, 1.2)), rng.uniform(1.0, 1.35)
    legs = rng.uniform(0.15, 0.35)
    return lambda t: {
        "right_shoulder": (-reach * (1 + swing(t)), 0, 0),
        "left_shoulder": (reach * (1 + swing(t)), 0, 0),
        "right_hip": (-legs * (1 + swing(t)), 0, 0),
        "left_hip": (legs * (1 + swing(t)), 0, 0),
    }


def _stretching(rng: np.random.Generator) -> _Angles:
    """Every joint drifts inside its own limits: the widest variety of poses."""
    paths = {
        "root": (_drift(rng, -0.2, 0.2), _drift(rng, -0.8, 0.8), _drift(rng, -0.2, 0.2)),
        "chest": (_drift(rng, -0.4, 0.4), _drift(rng, -0.5, 0.5), _drift(rng, -0.6, 0.2)),
        "neck": (_drift(rng, -0.3, 0.3), _drift(rng, -0.7, 0.7), _drift(rng, -0.3, 0.3)),
        "right_shoulder": (_drift(rng, -2.8, 0.0), _drift(rng, -0.5, 0.5), _drift(rng, -0.7, 2.2)),
        "left_shoulder": (_drift(rng, 0.0, 2.8), _drift(rng, -0.5, 0.5), _drift(rng, -0.7, 2.2)),
        "right_elbow": (_drift(rng, 0, 0), _drift(rng, 0, 0), _drift(rng, 0.0, 2.2)),
        "left_elbow": (_drift(rng, 0, 0), _drift(rng, 0, 0), _drift(rng, 0.0, 2.2)),
        "right_hip": (_drift(rng, -0.7, 0.1), _drift(rng, -0.3, 0.3), _drift(rng, -0.4, 1.3)),
        "left_hip": (_drift(rng, -0.1, 0.7), _drift(rng, -0.3, 0.3), _drift(rng, -0.4, 1.3)),
        "right_knee": (_drift(rng, 0, 0), _drift(rng, 0, 0), _drift(rng, -1.8, 0.0)),
        "left_knee": (_drift(rng, 0, 0), _drift(rng, 0, 0), _drift(rng, -1.8, 0.0)),
    }
    return lambda t: {joint: tuple(path(t) for path in axes) for joint, axes in paths.items()}  # type: ignore[misc]


_PROCEDURES: dict[str, Callable[[np.random.Generator], _Angles]] = {
    "waving": _waving,
    "raising both arms": _raising_arms,
    "squatting": _squatting,
    "marching": _marching,
    "doing jumping jacks": _jumping_jack,
    "stretching": _stretching,
}
