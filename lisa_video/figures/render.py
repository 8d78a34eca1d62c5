"""Rendered articulated figures: random appearance, background and camera, with exact keypoints and a caption.

Shape legend: F frames, N body points, K = 18 keypoints, H W pixels. Colours are RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisa_video.figures.body import (
    POINTS as _NAMES,
)
from lisa_video.figures.body import (
    Build,
    body_points,
    openpose_points,
    point,
    random_build,
)
from lisa_video.figures.motion import Motion
from lisa_video.raster import capsule_coverage

COLOURS = {
    "red": (0.80, 0.13, 0.13),
    "orange": (0.93, 0.50, 0.10),
    "yellow": (0.93, 0.83, 0.18),
    "green": (0.17, 0.58, 0.22),
    "blue": (0.15, 0.32, 0.80),
    "purple": (0.50, 0.20, 0.62),
    "pink": (0.95, 0.56, 0.70),
    "white": (0.94, 0.94, 0.92),
    "black": (0.10, 0.10, 0.12),
    "grey": (0.52, 0.53, 0.55),
}
_SKIN = ((0.96, 0.80, 0.69), (0.87, 0.67, 0.52), (0.70, 0.49, 0.34), (0.45, 0.30, 0.21))
_HAIR = ((0.12, 0.09, 0.07), (0.35, 0.22, 0.12), (0.80, 0.63, 0.32), (0.55, 0.22, 0.12))


@dataclass(frozen=True)
class Appearance:
    """Colours and clothes of one figure and its surroundings."""

    shirt: str
    trousers: str
    wall: str
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    shoes: tuple[float, float, float]
    long_sleeves: bool
    long_trousers: bool
    stripe_width: float
    """Width of the wall's stripes in metres."""
    stripe_contrast: float
    """0 is a plain wall."""


@dataclass(frozen=True)
class Camera:
    """A weak-perspective camera that follows the figure.

    Attributes:
        yaw, pitch: radians; yaw 0 sees the figure from the front, +-pi/2 from its sides.
        fill: share of the frame that the figure's path may fill.
        follow: 1 keeps the figure centred while it travels, 0 keeps the camera still.
        shift: (2,) placement inside the slack that `fill` leaves, each in [-1, 1].
    """

    yaw: float
    pitch: float
    fill: float
    follow: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class FigureClip:
    """A rendered clip with its truth.

    Attributes:
        frames: uint8 (F, H, W, 3).
        keypoints: float32 (F, 1, 18, 3), pixels and confidence; confidence 0 outside the frame and for
            features of the face that the head hides.
        caption: what is seen.
        motion: name of the motion.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    caption: str
    motion: str


def random_appearance(rng: np.random.Generator) -> Appearance:
    """Draw clothes and a wall in three different colours."""
    shirt, trousers, wall = (str(name) for name in rng.choice(list(COLOURS), 3, replace=False))
    return Appearance(
        shirt,
        trousers,
        wall,
        skin=_SKIN[rng.integers(len(_SKIN))],
        hair=_HAIR[rng.integers(len(_HAIR))],
        shoes=tuple(rng.uniform(0.05, 0.35, 3)),
        long_sleeves=bool(rng.random() < 0.5),
        long_trousers=bool(rng.random() < 0.75),
        stripe_width=float(rng.uniform(0.25, 1.2)),
        stripe_contrast=float(rng.choice([0.0, rng.uniform(0.03, 0.12)])),
    )


def random_camera(rng: np.random.Generator) -> Camera:
    """Draw a view; views from behind are a third as likely as others."""
    yaw = rng.uniform(-np.pi, np.pi)
    if abs(yaw) > 0.75 * np.pi and rng.random() < 2 / 3:
        yaw = rng.uniform(-0.75 * np.pi, 0.75 * np.pi)
    return Camera(
        yaw=float(yaw),
        pitch=float(rng.uniform(0.0, 0.25)),
        fill=float(rng.uniform(0.86, 0.97)),
        follow=float(rng.choice([1.0, rng.uniform(0.6, 1.0)])),
        shift=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
    )


def caption(appearance: Appearance, build: Build, action: str, camera: Camera) -> str:
    """One sentence that names build, clothes, action, wall and view."""
    angle = abs(camera.yaw)
    view = "front" if angle < np.pi / 4 else "side" if angle < 3 * np.pi / 4 else "back"
    lower = "trousers" if appearance.long_trousers else "shorts"
    return (
        f"a {build.name} person in a {appearance.shirt} shirt and {appearance.trousers} {lower} {action}, "
        f"{appearance.wall} wall, {view} view"
    )


def render_clip(
    motion: Motion,
    rng: np.random.Generator,
    *,
    frames: int,
    fps: float,
    size: tuple[int, int],
) -> FigureClip:
    """Render `frames` frames of `motion` from a random start with random build, clothes, wall and camera.

    Args:
        motion: what the figure does; must last at least (frames - 1) / fps seconds, else its end is held.
        rng: source of every random choice.
        frames: number of frames F.
        fps: frames per second.
        size: (width, height) in pixels.
    """
    build, appearance, camera = random_build(rng), random_appearance(rng), random_camera(rng)
    start = rng.uniform(0, max(motion.duration - (frames - 1) / fps, 0))
    points = body_points(motion.sample(start + np.arange(frames) / fps), build)
    view = _project(points, camera, size)
    pictures = [
        _draw_frame(view.points[f], view.origin[f], view.scale, build, appearance, size)
        for f in range(frames)
    ]
    return FigureClip(
        frames=np.stack(pictures),
        keypoints=_keypoints(view.points, size),
        caption=caption(appearance, build, motion.action, camera),
        motion=motion.name,
    )


@dataclass(frozen=True)
class _View:
    points: np.ndarray  # (F, N, 3): x, y in pixels; depth in metres, larger is farther
    origin: np.ndarray  # (F, 2): the pixel at which the floor's world origin appears
    scale: float  # pixels per metre


def _project(points: np.ndarray, camera: Camera, size: tuple[int, int]) -> _View:
    """World metres -> pixels. The camera looks along the ground, turned by yaw and tilted by pitch."""
    sin, cos = np.sin(camera.yaw), np.cos(camera.yaw)
    # Yaw 0 looks at the figure's face (along -x), so the figure's right is on the picture's left.
    across = -points[..., 2] * cos - points[..., 0] * sin
    away = -points[..., 0] * cos + points[..., 2] * sin
    up = points[..., 1] * np.cos(camera.pitch) + away * np.sin(camera.pitch)
    travel = camera.follow * (across[:, :1] - across[:1, :1])  # of the pelvis
    across = across - travel
    plane = np.stack([across, -up], axis=-1)  # (F, N, 2), y down
    low, high = plane.min((0, 1)) - 0.12, plane.max((0, 1)) + 0.12  # limbs have thickness
    extent = np.array(size)
    scale = float(min(camera.fill * extent / (high - low)))
    scale = min(scale, 0.52 * float(extent[1]))  # crouching figures are not blown up
    slack = (extent - scale * (high - low)) / 2
    offset = extent / 2 - scale * (low + high) / 2 + slack * np.array(camera.shift) * 0.8
    origin = offset - scale * np.concatenate([travel, np.zeros_like(travel)], axis=-1)
    pixels = scale * plane + offset
    return _View(np.concatenate([pixels, away[..., None]], axis=-1), origin, scale)


def _keypoints(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    keypoints = openpose_points(points)
    inside = np.all((keypoints[..., :2] >= 0) & (keypoints[..., :2] < np.array(size)), axis=-1)
    confidence = inside.astype(np.float32)
    # A feature of the face farther away than the head's centre is hidden by the head.
    face = [0, 14, 15, 16, 17]
    hidden = keypoints[:, face, 2] > point(points, "head")[:, None, 2] + 0.02
    confidence[:, face] *= ~hidden
    result = np.concatenate([keypoints[..., :2], confidence[..., None]], axis=-1)
    return result[:, None].astype(np.float32)


def _draw_frame(
    points: np.ndarray,
    origin: np.ndarray,
    scale: float,
    build: Build,
    appearance: Appearance,
    size: tuple[int, int],
) -> np.ndarray:
    """Painter's algorithm over limbs, far to near: uint8 (H, W, 3)."""
    canvas = _background(origin, scale, appearance, size)
    parts = _limbs(points, scale, build, appearance)
    middle = points[:, 2].mean()
    for part in sorted(parts, key=lambda part: -part.depth):
        # Nearer limbs are lighter: the cue that tells left from right in a side view.
        light = float(np.clip(1.0 - 0.9 * (part.depth - middle), 0.68, 1.18))
        colour = np.clip(np.array(part.colour) * light, 0, 1).astype(np.float32)
        for shrink, tone in ((1.0, 0.78), (0.62, 1.0)):  # a rounded limb has a darker rim
            cover = capsule_coverage(
                part.start, part.end, part.radii[0] * shrink, part.radii[1] * shrink, *size
            )
            canvas += cover[..., None] * (colour * tone - canvas)
    return np.round(canvas * 255).astype(np.uint8)


@dataclass(frozen=True)
class _Limb:
    start: np.ndarray  # (2,) pixels
    end: np.ndarray
    radii: tuple[float, float]  # pixels
    colour: tuple[float, float, float]
    depth: float


def _limbs(points: np.ndarray, scale: float, build: Build, appearance: Appearance) -> list[_Limb]:
    at = dict(zip(_NAMES, points, strict=True))
    shirt, trousers = COLOURS[appearance.shirt], COLOURS[appearance.trousers]
    lower_arm = shirt if appearance.long_sleeves else appearance.skin
    lower_leg = trousers if appearance.long_trousers else appearance.skin
    limbs: list[_Limb] = []

    def limb(
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        colour: tuple[float, float, float],
        nearer: float = 0.0,
        girth: float = build.girth,
    ) -> None:
        pixels = (radii[0] * scale * girth, radii[1] * scale * girth)
        depth = float(start[2] + end[2]) / 2 - nearer
        limbs.append(_Limb(start[:2], end[:2], pixels, colour, depth))

    for side in ("right", "left"):
        limb(at[f"{side}_ankle"], at[f"{side}_toe"], (0.05, 0.04), appearance.shoes, girth=1.0)
        limb(at[f"{side}_knee"], at[f"{side}_ankle"], (0.065, 0.05), lower_leg)
        limb(at[f"{side}_hip"], at[f"{side}_knee"], (0.085, 0.065), trousers)
        limb(at[f"{side}_wrist"], at[f"{side}_hand"], (0.04, 0.035), appearance.skin, girth=1.0)
        limb(at[f"{side}_elbow"], at[f"{side}_wrist"], (0.045, 0.038), lower_arm)
        limb(at[f"{side}_shoulder"], at[f"{side}_elbow"], (0.055, 0.045), shirt)
        limb(at[f"{side}_shoulder"], at[f"{side}_hip"], (0.075, 0.085), shirt)
    limb(at["chest"], (at["neck"] + at["chest"]) / 2, (0.13, 0.13), shirt)
    limb(at["right_hip"], at["left_hip"], (0.1, 0.1), trousers)
    limb(at["neck"], at["head"], (0.05, 0.05), appearance.skin, girth=1.0)
    head = build.head
    limb(at["head"], at["head"], (0.105, 0.105), appearance.skin, girth=head)
    # Hair sits behind and above: visible from the back, a fringe from the front.
    back = at["head"] + 0.35 * (at["head"] - at["nose"])
    top = back + 0.3 * (at["head"] - at["neck"])
    limb(back, top, (0.1, 0.095), appearance.hair, girth=head)
    for side in ("right", "left"):
        eye = at[f"{side}_eye"]
        limb(eye, eye, (0.02, 0.02), (0.08, 0.06, 0.06), nearer=0.1, girth=head)
    limb(at["nose"], at["nose"], (0.022, 0.022), _darker(appearance.skin), 0.1, head)
    # What the head hides is not drawn through it.
    return [
        part for part in limbs if not (part.radii[0] < 0.03 * scale and part.depth > at["head"][2])
    ]


def _darker(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = colour
    return 0.75 * red, 0.75 * green, 0.75 * blue


def _background(
    origin: np.ndarray, scale: float, appearance: Appearance, size: tuple[int, int]
) -> np.ndarray:
    """A wall with stripes and a floor, both fixed to the world: float32 (H, W, 3)."""
    width, height = size
    wall = np.array(COLOURS[appearance.wall], dtype=np.float32) * 0.85 + 0.08
    across = (np.arange(width) + 0.5 - origin[0]) / scale / appearance.stripe_width
    stripe = appearance.stripe_contrast * np.clip(4 * np.sin(np.pi * across), -1, 1)
    fall = np.linspace(1.05, 0.9, height)[:, None]
    canvas = wall * (fall + stripe[None, :])[..., None]
    horizon = origin[1] - 0.12 * scale  # the floor begins a little behind the figure's feet
    floor = np.clip(np.arange(height) + 1.0 - horizon, 0, 1)[:, None, None]
    tiles = 1 + 0.5 * appearance.stripe_contrast * np.sign(np.sin(np.pi * across))[None, :, None]
    canvas = canvas + floor * (wall * 0.62 * tiles - canvas)
    return np.clip(canvas, 0, 1).astype(np.float32)
