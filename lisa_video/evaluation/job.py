"""The evaluation job: folders in, a table, a JSON file and a report out."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lisa_video.cli import EXIT_USER_ERROR, config_to_dict
from lisa_video.clip_files import find_clips, find_poses
from lisa_video.detectors import check_detector
from lisa_video.errors import UserError
from lisa_video.evaluation.clips import ClipResults, measure_clips
from lisa_video.evaluation.distribution import Distances, Side, measure_distances
from lisa_video.evaluation.parallel import Failure, Processes
from lisa_video.evaluation.pose_scores import check_lengths
from lisa_video.evaluation_config import DISTRIBUTION, PAIRS, POSE, EvaluateConfig
from lisa_video.metrics.extractors import I3D_NAME
from lisa_video.metrics.fvd import VideoDistance
from lisa_video.metrics.pose_presets import PoseTally, pose_preset
from lisa_video.metrics.presets import fvd_preset
from lisa_video.metrics.statistics import load_statistics
from lisa_video.poses import PoseSequence
from lisa_video.reports import (
    check_new_file,
    format_table,
    json_number,
    package_versions,
    replace_text,
    write_json,
)

VERSIONS = ("numpy", "scipy", "torch", "av", "opencv-python-headless")

# Keys of `PoseTally.metrics` by the metric that asks for them, without their thresholds.
_POSE_KEYS = {
    "pck": ("pck", "pck_micro", "auc"),
    "oks": ("oks",),
    "keypoint_distance": (
        "keypoint_distance",
        "keypoint_distance_px",
        "keypoint_distance_l1_px",
    ),
    "missing_rate": ("missing_rate",),
    "extra_people": ("extra_people",),
    "acceleration": ("acceleration_px",),
    "jitter": ("jitter_px",),
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    """Ends of the interval."""
    reference: float | None = None
    """Of poses the detector's ceiling, of pictures the mean over real clips."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that was measured."""

    config: EvaluateConfig
    distances: Distances | None
    clips: ClipResults | None

    @property
    def failures(self) -> list[Failure]:
        """What was left out, each file once."""
        parts = [part.failures for part in (self.distances, self.clips) if part is not None]
        by_reason = {failure.reason: failure for part in parts for failure in part}
        return list(by_reason.values())

    @property
    def warnings(self) -> list[str]:
        """What keeps the values from being compared with others."""
        found: list[str] = []
        if self.distances is not None:
            real, fake = self.distances.real, self.distances.fake
            found += real.warnings + fake.warnings
            if real.fps and fake.fps and real.fps != fake.fps:
                found.append(
                    f"real clips have {_listed(real.fps)} fps, generated {_listed(fake.fps)}: "
                    "frames are compared as they are, so their motion differs"
                )
            for distance in self.distances.values.values():
                found += distance.warnings
        return list(dict.fromkeys(found))

    def rows(self) -> list[Row]:
        """The table: distances, then poses, then pictures."""
        rows = []
        for distance in self.distances.values.values() if self.distances else ():
            interval = distance.interval
            low, high = (interval.low, interval.high) if interval else (None, None)
            rows.append(Row(distance.name, distance.value, low, high))
        if self.clips is not None and self.clips.pose is not None:
            ceiling = self.clips.ceiling
            limits = pose_values(self.config, ceiling.total) if ceiling else {}
            for name, value in pose_values(self.config, self.clips.pose.total).items():
                rows.append(Row(name, value, reference=limits.get(name)))
        if self.clips is not None:
            for name, value in self.clips.means().items():
                rows.append(Row(name, value, reference=self.clips.real_pictures.get(name)))
        return rows

    def per_clip(self) -> dict[str, dict[str, float]]:
        """Metrics of each generated clip."""
        if self.clips is None:
            return {}
        return {
            name: (pose_values(self.config, found.tally) if found.tally else {}) | found.values
            for name, found in self.clips.clips.items()
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values; None for what is not a finite number."""
        result: dict[str, Any] = {"metrics": {row.name: _row_json(row) for row in self.rows()}}
        if self.distances is not None:
            for metric, distance in self.distances.values.items():
                protocol = self.distances.protocols[metric]
                result["metrics"][distance.name] = _distance_json(distance) | protocol
            result["real"] = self.distances.real.to_json()
            result["fake"] = self.distances.fake.to_json()
        if self.clips is not None and self.clips.pose is not None:
            pose, ceiling = self.clips.pose, self.clips.ceiling
            result["pose"] = {
                "detector": pose.detector,
                **_preset_json(pose.total),
                "clips": len(pose.clips),
                "frames": pose.total.frames,
                "joints": pose.total.joints,
                "ceiling": ceiling.to_json() if ceiling else None,
            }
        result["per_clip"] = {
            name: {metric: json_number(value) for metric, value in values.items()}
            for name, values in self.per_clip().items()
        }
        return result | {
            "skipped": [failure.reason for failure in self.failures],
            "warnings": self.warnings,
            "config": config_to_dict(self.config),
            "versions": package_versions(*VERSIONS),
        }


def check_evaluation(config: EvaluateConfig) -> None:
    """Raises UserError for what can be told without decoding: names, folders, poses, outputs."""
    fvd_preset(config.preset)
    pose_preset(config.pose_preset)
    for path in filter(None, (config.json, config.html, config.statistics)):
        check_new_file(path)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    for network in (config.network, config.fid_network, config.lpips_network):
        if network not in (None, I3D_NAME) and not Path(str(network)).exists():
            raise UserError(f"{network}: no such network")
    if config.asked((*DISTRIBUTION, *PAIRS)):
        _check_real(config)
    if config.fake is not None:
        find_clips(config.fake)
    if config.asked(POSE):
        _check_poses(config)
    if config.asked(PAIRS):
        assert config.real is not None and config.fake is not None
        _check_names(find_clips(config.fake), find_clips(config.real), "clip", config.real)


def evaluate(config: EvaluateConfig) -> None:
    """Measure, print the table, write the files.

    Under `accelerate launch` every process measures its share, and the first one reports.

    Raises UserError where nothing can be measured, or, after the files are written, where clips
    were left out and the config does not allow it.
    """
    processes = Processes()
    try:
        found = Evaluation(
            config, measure_distances(config, processes), measure_clips(config, processes)
        )
        if processes.is_main:
            _report(found)
        if found.failures and not config.allow_skips:
            raise UserError(
                f"{len(found.failures)} clips were left out, as the lines above say; mend them, or "
                "accept it with --allow-skips"
            )
    except UserError:
        if processes.is_main:
            raise
        raise SystemExit(EXIT_USER_ERROR) from None  # one line is enough


def format_evaluation(found: Evaluation) -> str:
    """The table and what it was made of."""
    rows = found.rows()
    columns = [("", [row.name for row in rows]), ("value", [_shown(row.value) for row in rows])]
    if any(row.low is not None for row in rows):
        intervals = [
            "" if row.low is None or row.high is None else f"{row.low:.4g} to {row.high:.4g}"
            for row in rows
        ]
        columns.append(("95 % interval", intervals))
    if any(row.reference is not None for row in rows):
        columns.append(("real", [_shown(row.reference) for row in rows]))
    table = format_table(
        [title for title, _ in columns], list(zip(*(cells for _, cells in columns), strict=True))
    )
    return "\n".join([table, *_notes(found)])


def pose_values(config: EvaluateConfig, tally: PoseTally) -> dict[str, float]:
    """The pose measures that the config asks for."""
    wanted = {key for metric in config.asked(POSE) for key in _POSE_KEYS[metric]}
    values = tally.metrics()
    return {name: value for name, value in values.items() if name.split("@")[0] in wanted}


def _report(found: Evaluation) -> None:
    for failure in found.failures:
        print(f"left out: {failure.reason}", file=sys.stderr)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(format_evaluation(found))
    if found.config.json is not None:
        write_json(found.config.json, found.to_json())
    if found.config.html is not None:
        from lisa_video.evaluation.report import html_report

        check_new_file(found.config.html)
        replace_text(found.config.html, html_report(found))


def _check_real(config: EvaluateConfig) -> None:
    assert config.real is not None
    if config.real.suffix != ".npz":
        find_clips(config.real)
        return
    load_statistics(config.real)
    refused = config.asked(("kvd", "fvd_infinity", "fid", *PAIRS))
    if refused:
        raise UserError(f"metric '{refused[0]}' needs the real clips, not only their statistics")
    if config.statistics is not None:
        raise UserError(f"{config.real}: these are statistics already")


def _check_poses(config: EvaluateConfig) -> None:
    assert config.poses is not None
    poses = find_poses(config.poses)
    lengths = {
        name: len(PoseSequence.load(path, require_people=True)) for name, path in poses.items()
    }
    if config.fake_poses is not None:
        given = find_poses(config.fake_poses)
        _check_names(given, poses, "pose file", config.poses)
        _check_names(poses, given, "pose file", config.fake_poses)
        for name, path in given.items():
            check_lengths(str(path), len(PoseSequence.load(path)), lengths[name])
    else:
        check_detector(config.detector)
    for folder in filter(None, (config.fake, config.ground_truth)):
        clips = find_clips(folder)
        _check_names(clips, poses, "pose file", config.poses)
        _check_names(poses, clips, "clip", folder)


def _check_names(
    these: Mapping[str, Path], others: Mapping[str, Path], kind: str, folder: Path
) -> None:
    """Each of `these` has a partner among `others`, which are in `folder`."""
    unmatched = [path for name, path in these.items() if name not in others]
    if unmatched:
        more = f" (nor for {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise UserError(
            f"{unmatched[0]}: no {kind} of that name in {folder}{more}; they are matched by name"
        )


def _notes(found: Evaluation) -> list[str]:
    notes = []
    if found.distances is not None:
        counts = [f"{_videos(side)} {kind}" for side, kind in _sides(found.distances)]
        notes.append(f"preset {found.config.preset}, {' and '.join(counts)}")
    if found.clips is not None and found.clips.pose is not None:
        pose = found.clips.pose
        notes.append(
            f"detector {pose.detector}, preset {pose.total.preset.name}, {len(pose.clips)} clips, "
            f"{pose.total.frames} frames"
        )
        if found.clips.ceiling is None:
            notes.append("ceiling not measured: give --ground_truth a folder of real clips")
    return notes


def _sides(distances: Distances) -> list[tuple[Side, str]]:
    return [(distances.real, "real"), (distances.fake, "generated clips")]


def _videos(side: Side) -> str:
    return str(len(side.names)) if side.names else "kept statistics of"


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "value": json_number(row.value),
        "reference": None if row.reference is None else json_number(row.reference),
    }


def _distance_json(distance: VideoDistance) -> dict[str, Any]:
    return {
        "value": distance.value,
        "interval": asdict(distance.interval) if distance.interval else None,
        "n_real": distance.real,
        "n_fake": distance.fake,
        "dimension": distance.dimension,
        "ddof": distance.ddof,
        "extrapolation": asdict(distance.extrapolation) if distance.extrapolation else None,
    }


def _preset_json(tally: PoseTally) -> dict[str, Any]:
    rules = asdict(tally.preset)
    return {"preset": rules.pop("name"), "rules": rules}


def _shown(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3])
