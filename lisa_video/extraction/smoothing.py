"""Keypoints over time: short gaps filled, jitter taken out.

Shape legend: F frames, P people, K keypoints.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lisa_video.extraction_config import SmoothingConfig
from lisa_video.poses.skeletons import BODY

_FILLED = 0.5  # confidence of a filled joint, as a share of the lower one beside the gap
_SPEED_CUTOFF = 1.0  # Hz at which speeds are smoothed, as in the One-Euro filter's paper


def refine_motion(
    keypoints: NDArray[np.float32], fps: float, config: SmoothingConfig
) -> NDArray[np.float32]:
    """Fill gaps and smooth each person of (F, P, K, 3); confidences rise nowhere above what was
    detected beside them. Returns the same shape."""
    refined = keypoints.copy()
    for person in range(refined.shape[1]):
        track = fill_gaps(refined[:, person], config.max_gap)
        if config.min_cutoff > 0:
            track = smooth(track, fps, config)
        refined[:, person] = track
    return refined


def fill_gaps(track: NDArray[np.float32], max_gap: int) -> NDArray[np.float32]:
    """Joints (F, K, 3) missing for up to `max_gap` frames, on a straight line between the places
    where they were found, at half the lower confidence there."""
    filled = track.copy()
    for joint in range(track.shape[1]):
        found = np.flatnonzero(track[:, joint, 2] > 0)
        for place in np.flatnonzero(np.diff(found) > 1):
            start, stop = found[place], found[place + 1]
            if stop - start - 1 > max_gap:
                continue
            inside = np.arange(start + 1, stop)
            share = ((inside - start) / (stop - start))[:, None]
            ends = track[start, joint, :2], track[stop, joint, :2]
            filled[inside, joint, :2] = (1 - share) * ends[0] + share * ends[1]
            filled[inside, joint, 2] = _FILLED * track[[start, stop], joint, 2].min()
    return filled


def smooth(track: NDArray[np.float32], fps: float, config: SmoothingConfig) -> NDArray[np.float32]:
    """One person (F, K, 3), each joint by the mean of a One-Euro filter's runs forwards and
    backwards, which lag in opposite directions. Joints that are missing stay so."""
    height = _body_height(track)
    if not height > 0:
        return track
    places = track.astype(np.float64)
    forwards = _one_euro(places, fps, height, config)
    backwards = _one_euro(places[::-1], fps, height, config)[::-1]
    smoothed = track.copy()
    smoothed[..., :2] = np.where(track[..., 2:] > 0, (forwards + backwards) / 2, track[..., :2])
    return smoothed


def _one_euro(
    track: NDArray[np.float64], fps: float, height: float, config: SmoothingConfig
) -> NDArray[np.float64]:
    """Places (F, K, 2) by the One-Euro filter (Casiez, Roussel and Vogel 2012, algorithm 1): a low
    pass whose cutoff rises with speed, here in body heights per second.

    The weight of a new place is scaled by its confidence, so that a doubtful one moves the result
    less. A joint that was missing begins anew.
    """
    result = np.zeros((*track.shape[:2], 2))
    speed = np.zeros(result.shape[1:])
    before = np.zeros(result.shape[1:])
    known = np.zeros((track.shape[1], 1), dtype=bool)
    for number, joints in enumerate(track):
        place, confidence = joints[:, :2], joints[:, 2:]
        raw_speed = (place - before) * fps / height
        speed = np.where(known, speed + _weight(_SPEED_CUTOFF, fps) * (raw_speed - speed), 0)
        cutoff = config.min_cutoff + config.beta * np.linalg.norm(speed, axis=-1, keepdims=True)
        step = _weight(cutoff, fps) * confidence * (place - before)
        before = np.where(known, before + step, place)
        known = confidence > 0
        result[number] = before
    return result


def _weight(cutoff: NDArray[np.float64] | float, fps: float) -> NDArray[np.float64] | float:
    """Of the new value in an exponential low pass: 1 / (1 + tau fps), tau = 1 / (2 pi cutoff)."""
    return 1 / (1 + fps / (2 * math.pi * cutoff))


def _body_height(track: NDArray[np.float32]) -> float:
    """Median over frames of the height of the body's joints, in pixels; 0 without any."""
    body = track[:, BODY]
    body = body[(body[..., 2] > 0).any(axis=-1)]
    if not len(body):
        return 0.0
    found = body[..., 2] > 0
    tops = np.where(found, body[..., 1], np.inf).min(axis=-1)
    bottoms = np.where(found, body[..., 1], -np.inf).max(axis=-1)
    return float(np.median(bottoms - tops))
