"""Clips of a wandering dot that a keypoint follows."""

import numpy as np

from lisa_video.poses import PoseSequence

WIDTH, HEIGHT, LENGTH, FPS = 48, 32, 12, 10.0
DOT = 0  # the joint that the dot in the picture follows


def dot_clip(
    width: int = WIDTH, height: int = HEIGHT, frames: int = LENGTH, radius: int = 3
) -> tuple[np.ndarray, PoseSequence]:
    """A white dot on black that wanders, with one keypoint at its centre; other joints absent."""
    x = np.linspace(width * 0.35, width * 0.65, frames).round() + 0.5
    y = np.linspace(height * 0.6, height * 0.4, frames).round() + 0.5
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = np.hypot(columns - x[:, None, None], rows - y[:, None, None]) <= radius
    pixels = np.repeat(inside[..., None] * np.uint8(255), 3, axis=-1)
    keypoints = np.zeros((frames, 1, 18, 3), np.float32)
    keypoints[:, 0, DOT] = np.stack([x, y, np.ones(frames)], axis=-1)
    return pixels, PoseSequence(keypoints, width, height, FPS, detector="ground-truth")


def dot_centres(frames: np.ndarray) -> np.ndarray:
    """Centre of the brightness of each frame, (F, 2), in continuous coordinates."""
    light = frames.astype(float).mean(axis=-1)
    light[light < 60] = 0
    columns = (light.sum(axis=1) * (np.arange(light.shape[2]) + 0.5)).sum(axis=1)
    rows = (light.sum(axis=2) * (np.arange(light.shape[1]) + 0.5)).sum(axis=1)
    return np.stack([columns, rows], axis=-1) / light.sum(axis=(1, 2))[:, None]
