"""The demo: both objectives on the embedded backbone, held-out poses and a real clip, pictures and figures.

Shape legend: N clips, F frames, H W pixels.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lisa_video.assets import fetch_asset
from lisa_video.backbones import load_side_network
from lisa_video.comparison.config import arm_folder
from lisa_video.comparison.run import Comparison, check_comparison, compare, write_comparison
from lisa_video.comparison.scoring import held_out_clips
from lisa_video.dataset import collate
from lisa_video.demonstration_config import DemoConfig
from lisa_video.detectors import build_detector
from lisa_video.errors import UserError
from lisa_video.extraction import detect_poses
from lisa_video.figures.config import FiguresDatasetConfig
from lisa_video.figures.export import export_figures
from lisa_video.gallery import as_frames, contact_sheet, side_by_side
from lisa_video.manifest import MANIFEST
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.poses.framing import framed, window_of
from lisa_video.reports import replace_file
from lisa_video.training.config import Objective
from lisa_video.training.setup import DTYPES, open_backbone
from lisa_video.video import read_video, write_video

_OBJECTIVES: tuple[Objective, Objective] = ("plain", "lisa")
_LOOPS = 3  # how often each short clip is shown
_LABELS = {"plain": "plain", "lisa": "LISA"}


@dataclass(frozen=True)
class Shown:
    """One row of pictures.

    Attributes:
        title: what drives it.
        panels: label -> uint8 (F, H, W, 3).
    """

    title: str
    panels: dict[str, np.ndarray]


def run_demo(config: DemoConfig) -> Path:
    """Run what is not done yet, write everything into the output folder and return it.

    Raises:
        UserError: as training, scoring and extraction do.
    """
    started = time.monotonic()
    folder = config.comparison.training.output
    render_data(config)
    check_comparison(config.comparison)
    comparison = compare(config.comparison)
    write_comparison(comparison, folder)
    rows = [*held_out_rows(config, comparison), real_row(config, comparison)]
    _write_pictures(config, comparison, rows, folder)
    print((folder / "report.md").read_text())
    print(f"{folder}: side_by_side.mp4, sheet.png, curves.png, results.json, report.md")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    return folder


def render_data(config: DemoConfig) -> None:
    """Render the figures set on the first run; an interrupted rendering is begun again."""
    root = config.comparison.training.data.root
    if (root / MANIFEST).is_file():
        return
    unfinished = root.with_name(f".{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    dataset = FiguresDatasetConfig(
        output=unfinished, figures=config.figures, validation_clips=config.validation_clips
    )
    export_figures(dataset, fetch_asset("motions"))
    try:
        unfinished.rename(root)
    except OSError as error:
        raise UserError(
            f"{root}: holds no dataset and cannot be replaced: {error.strerror}"
        ) from None


def held_out_rows(config: DemoConfig, comparison: Comparison) -> list[Shown]:
    """Renders, their poses, and what both objectives made of them at the last step."""
    held_out = held_out_clips(config.comparison)
    last = config.comparison.training.steps
    generated = {name: _stored(comparison, name, last) for name in _OBJECTIVES}
    poses = collate(held_out.clips).pose_frames.numpy()
    return [
        Shown(
            clip.caption,
            {
                "driving render": clip.pixels,
                "pose": as_frames(poses[index]),
                **{_LABELS[name]: generated[name][index] for name in _OBJECTIVES},
            },
        )
        for index, clip in enumerate(held_out.clips[: config.shown])
    ]


def real_row(config: DemoConfig, comparison: Comparison) -> Shown:
    """A real clip: its surest window, the poses found there, and both objectives' answer."""
    training = config.comparison.training
    frames, poses = driving_window(config, training.data.frames)
    size = training.data.size
    fitted = framed(poses, size, "people")
    drawn = draw_pose_frames(fitted.keypoints, size, size)
    window = window_of(poses, size, "people")
    left, top = max(0, round(window.left)), max(0, round(window.top))
    right, bottom = round(window.left + window.width), round(window.top + window.height)
    panels = {f"driving {config.real.name}": frames[:, top:bottom, left:right]}
    panels["pose"] = as_frames(drawn)
    backbone = open_backbone(training.backbone, DTYPES[training.mixed_precision])
    for name in _OBJECTIVES:
        side = load_side_network(_arm(comparison, name) / "side_network")
        pipeline = PoseToVideoPipeline.from_backbone(backbone, side)
        pipeline.set_progress_bar_config(disable=True)
        output = pipeline(
            config.real.prompt,
            torch.from_numpy(drawn)[None],
            num_inference_steps=config.comparison.score.inference_steps,
            guidance_scale=config.comparison.score.guidance_scale,
            generator=torch.Generator().manual_seed(config.comparison.score.seed),
        )
        panels[_LABELS[name]] = np.round(np.asarray(output.frames[0]) * 255).astype(np.uint8)
    return Shown(f"{config.real.name}: {config.real.prompt}", panels)


def driving_window(config: DemoConfig, length: int) -> tuple[np.ndarray, PoseSequence]:
    """The `length` frames of the real clip, at its stride, whose poses are surest.

    Returns:
        frames uint8 (F, H, W, 3) and their poses.

    Raises:
        UserError: the clip is too short, or nobody is seen in it long enough.
    """
    video = read_video(fetch_asset("clips") / config.real.name)
    stride = config.real.stride
    starts = len(video.frames) - (length - 1) * stride
    if starts < 1:
        raise UserError(f"{config.real.name}: {len(video.frames)} frames, too short for the demo")
    poses = detect_poses(video.frames, video.fps, build_detector("blazepose"))
    offsets = np.arange(length) * stride
    weights = poses.frame_weights()
    worst = np.array([weights[start + offsets].min() for start in range(starts)])
    if worst.max() == 0:
        raise UserError(f"{config.real.name}: nobody is seen in {length} frames one after another")
    chosen = (int(worst.argmax()) + offsets).tolist()
    return video.frames[chosen], replace(poses.frames(chosen), fps=poses.fps / stride)


def _write_pictures(
    config: DemoConfig, comparison: Comparison, rows: list[Shown], folder: Path
) -> None:
    scenes = [side_by_side(_squared(row.panels)) for row in rows]
    frames = np.concatenate([np.concatenate([scene] * _LOOPS) for scene in scenes])
    fps = config.figures.fps
    write_video(folder / "side_by_side.mp4", frames, fps, overwrite=True)
    strips = [
        (f"{row.title} | {label}", clip) for row in rows for label, clip in row.panels.items()
    ]
    for name in _OBJECTIVES:
        for step in config.comparison.score.at:
            clip = _stored(comparison, name, step)[0]
            strips.append((f"{_LABELS[name]} after {step} steps", clip))
    sheet = Image.fromarray(contact_sheet(strips))
    replace_file(folder / "sheet.png", sheet.save)


def _squared(panels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Panels of one shape, so that scenes can follow each other in one video."""
    squared = {}
    for label, frames in panels.items():
        height, width = frames.shape[1:3]
        across, down = max(0, height - width), max(0, width - height)
        margins = ((0, 0), (down // 2, down - down // 2), (across // 2, across - across // 2))
        squared[label] = np.pad(frames, (*margins, (0, 0)))
    return squared


def _arm(comparison: Comparison, objective: Objective) -> Path:
    """Folder of the best setting's first seed."""
    config = comparison.config
    setting = comparison.best(objective).setting
    return arm_folder(config.training.output, setting, config.seeds[0])


def _stored(comparison: Comparison, objective: Objective, step: int) -> np.ndarray:
    clips: np.ndarray = np.load(_arm(comparison, objective) / f"generated-{step}.npy")
    return clips
