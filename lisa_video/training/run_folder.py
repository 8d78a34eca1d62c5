"""The output folder of a run: whose it is, its settings, and its log.

config.yaml     the resolved settings
run.json        what the run was: machine, versions, data, interruptions, figures; see `run_record`
log.jsonl       one line per logged step
tensorboard/    the same, and validation videos; wandb/ likewise, see `trackers`
validation/     videos of validation, a folder for each step
report.html     all of it as one page
checkpoints/    see `checkpoint`
side_network/   the finished network: the average of its weights
lora/           adapters of the main network, where there are any: the average of their weights
decoder/        the LISA decoder, for going on training; generation never needs it
.lock           held by the process that writes here

A run goes on in its folder with the settings that it began with, but for `FREE_KEYS`; the clips and
the code have to be the same, unless `allow_changed` says otherwise. Other settings need a folder of
their own, which may start from a checkpoint of this one: its config.yaml then names that checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from lisa_video.cli import config_to_dict, resolved_yaml
from lisa_video.errors import UserError
from lisa_video.locking import LOCK_FILE, only_writer
from lisa_video.reports import is_unfinished, replace_text
from lisa_video.training.checkpoint import INDEX_FILE, latest_checkpoint, read_index
from lisa_video.training.config import (
    BackboneConfig,
    DataConfig,
    TrainConfig,
    ValidationConfig,
    WandbConfig,
)
from lisa_video.training.config.run import CONFIG_VERSION
from lisa_video.training.folders import sync_file

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.jsonl"
VIDEOS_FOLDER = "validation"
# These may change when a run goes on: they alter neither its steps nor its log lines so far. Where
# clips lie is free, since what they are is compared by itself.
FREE_KEYS = {
    "version",
    "steps",
    "resume",
    "allow_changed",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "keep_best",
    "best_metric",
    "output",
    "optimizer.decay_steps",  # beside `steps`: see _changed_fall
    # Which clips a step has is compared by itself: see `BatchStream.sharing`.
    "optimizer.gradient_accumulation_steps",
    "data.batch_size",
    "data.encode_frames_at_once",
    "offload",
    "data.root",
    "data.workers",
    "data.cache",
    "data.check_clips",
    "trackers",
    *(f"wandb.{field.name}" for field in fields(WandbConfig)),
    *(f"validation.{field.name}" for field in fields(ValidationConfig)),
}
# A checkpoint has what these made of it, whatever they are now.
STRUCTURE = (
    "version",
    "backbone.kind",
    "objective",
    "side_network.",
    "lora.",
    "alignment.tap",
    "optimizer.kind",
)


def check_run_folder(config: TrainConfig) -> None:
    """Raise UserError unless the run can start in, or go on in, its output folder."""
    output = config.output
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output}: is a file; give the name of a folder")
    if not output.exists() or all(map(_is_passing, output.iterdir())):
        if config.forked_from is not None:
            _check_fork(config, config.forked_from)
        return
    if not (output / CONFIG_FILE).is_file():
        raise UserError(f"output={output}: holds files that are no training run; give another")
    if config.resume == "never":
        raise UserError(
            f"output={output}: holds a run already; give another, or --resume auto to go on with it"
        )
    settings = _read_settings(output / CONFIG_FILE)
    if config.forked_from is not None and settings.get("resume") != config.resume:
        raise UserError(
            f"output={output}: holds a run that did not start from {config.resume}; give another"
        )
    for _, change in _changed_settings(settings, config):
        raise UserError(
            f"output={output}: holds a run with other settings ({change}); give another output"
        )


def _is_passing(path: Path) -> bool:
    return path.name == LOCK_FILE or is_unfinished(path)


def _check_fork(config: TrainConfig, checkpoint: Path) -> None:
    """UserError unless a new run can go on from a checkpoint of another."""
    if not (checkpoint / INDEX_FILE).is_file():
        raise UserError(
            f"resume={checkpoint}: no checkpoint there (no {INDEX_FILE}); give auto, never, or the "
            f"folder of a checkpoint such as outputs/run/checkpoints/step_00001000"
        )
    path, allowed = _run_of(checkpoint) / CONFIG_FILE, "settings" in config.allowed_changes
    if not path.is_file():
        raise UserError(
            f"resume={checkpoint}: lies outside of its run, so its settings are not known; bring "
            f"{CONFIG_FILE} of the run two folders above it"
        )
    for key, change in _changed_settings(_read_settings(path), config):
        if key.startswith(STRUCTURE):
            raise UserError(
                f"resume={checkpoint}: is of networks with other settings ({change}); start a new "
                "run, which side_network.init_from can give the weights"
            )
        if not allowed:
            raise UserError(
                f"resume={checkpoint}: is of a run with other settings ({change}); to go on with "
                "those given now, give --allow_changed settings"
            )


def _changed_settings(there: Mapping[str, Any], config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Keys, but for `FREE_KEYS`, in which a run's own settings differ from those given now, and what
    they are there and here."""
    version = there.get("version", CONFIG_VERSION)
    if version != CONFIG_VERSION:
        yield "version", f"their version is {version} there and {CONFIG_VERSION} here"
    # Settings that the run was older than had their defaults.
    unset = TrainConfig(
        BackboneConfig(config.backbone.path), DataConfig(config.data.root), config.output
    )
    here, defaults = (dict(_flattened(config_to_dict(each))) for each in (config, unset))
    stored = dict(_flattened(there))
    for key in dict.fromkeys([*here, *stored]):
        if key in FREE_KEYS:
            continue
        # What is a section in the one may be a value in the other: {stride: 2} and all.
        inner = any(name.startswith(f"{key}.") for name in stored)
        old = stored.get(key, "unset" if inner else defaults.get(key, "unset"))
        new = here.get(key, "unset")
        if old != new:
            yield key, f"{key} is {old} there and {new} here"
    yield from _changed_fall(stored, config)


def _changed_fall(stored: Mapping[str, Any], config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The step until which the learning rate falls, where that is another for the steps done."""
    until = config.optimizer.falls_until(config.steps)
    before = stored.get("optimizer.decay_steps") or stored.get("steps")
    if until not in (None, before):
        yield (
            "optimizer.decay_steps",
            f"the learning rate falls until step {before} there and {until} here; "
            f"optimizer.decay_steps {before} leaves it as it was",
        )


def start_checkpoint(config: TrainConfig) -> Path | None:
    """The checkpoint that a run goes on from: its newest, or else that which it was started from.

    None where it starts from nothing. Raises UserError where that has more steps than the run.
    """
    checkpoint = latest_checkpoint(config.output) or _origin(config)
    if checkpoint is not None and read_index(checkpoint).step > config.steps:
        raise UserError(
            f"steps={config.steps}: {checkpoint} has done more already; give more steps"
        )
    return checkpoint


def _origin(config: TrainConfig) -> Path | None:
    """The checkpoint of another run that a run was, or is now, started from."""
    path = config.output / CONFIG_FILE
    if config.forked_from is not None or not path.is_file():
        return config.forked_from
    resume = _read_settings(path).get("resume", "auto")
    return None if resume in ("auto", "never") else Path(str(resume))


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent


@contextmanager
def held_run_folder(config: TrainConfig) -> Iterator[None]:
    """Be the one process that writes to the run's folder, which is made; it is checked again.

    Raises UserError as `check_run_folder`, and where another process writes there.
    """
    check_run_folder(config)
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={config.output}: cannot be made: {error.strerror}") from None
    with only_writer(config.output):
        check_run_folder(config)
        yield


def claim_run_folder(config: TrainConfig) -> None:
    """Write the settings, which mark the folder as this run's, and the log of where it starts from."""
    config.output.mkdir(parents=True, exist_ok=True)
    origin, log = _origin(config), config.output / LOG_FILE
    # What was allowed once is not allowed for ever.
    resume = config.resume if origin is None else str(origin)
    settings = replace(config, resume=resume, allow_changed="")
    replace_text(config.output / CONFIG_FILE, resolved_yaml(settings))
    sync_file(config.output / CONFIG_FILE)
    if origin is not None and not log.exists():
        replace_text(log, "".join(map(_line, read_log(_run_of(origin)))))


class RunLog:
    """log.jsonl, going on after `step`: later lines, of an interrupted run, go."""

    def __init__(self, output: Path, step: int) -> None:
        self.path = output / LOG_FILE
        rows = [row for row in read_log(output) if row["step"] <= step] if step else []
        replace_text(self.path, "".join(map(_line, rows)))

    def write(self, step: int, values: Mapping[str, float | list[float]]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, first to last; none where it has no log.

    A last line without its end, as a run that was killed leaves it, is left out.
    """
    path = output / LOG_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _line(row: Mapping[str, Any]) -> str:
    # A gradient norm that overflowed in fp16 is infinite, which JSON cannot say.
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(plain) + "\n"


def _read_settings(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        values = None
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: not the settings of a training run; give another output")
    return values


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
