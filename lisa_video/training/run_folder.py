"""The output folder of a run: whose it is, its settings, and its log.

config.yaml     the resolved settings
log.jsonl       one line per logged step
tensorboard/    the same as TensorBoard scalars
checkpoints/    see `checkpoint`
side_network/   the finished network: the average of its weights
decoder/        the LISA decoder, for going on training; generation never needs it
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lisa_video.cli import config_to_dict, resolved_yaml
from lisa_video.errors import UserError
from lisa_video.reports import replace_text
from lisa_video.training.config import BackboneConfig, DataConfig, TrainConfig

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.jsonl"
# These may change when a run goes on: they alter neither its steps nor its log lines so far.
FREE_KEYS = {
    "steps",
    "resume",
    "checkpoint_every",
    "keep_checkpoints",
    "output",
    "offload",
    "data.workers",
    "data.cache",
    "data.check_clips",
}


def check_run_folder(config: TrainConfig) -> None:
    """Raise UserError unless the run can start in, or go on in, its output folder."""
    output = config.output
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output}: is a file; give the name of a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / CONFIG_FILE).is_file():
        raise UserError(f"output={output}: holds files that are no training run; give another")
    if config.resume == "never":
        raise UserError(
            f"output={output}: holds a run already; give another, or --resume auto to go on with it"
        )
    # Settings that the run was older than had their defaults.
    unset = TrainConfig(
        BackboneConfig(config.backbone.path), DataConfig(config.data.root), config.output
    )
    there = dict(_flattened(config_to_dict(unset)))
    there |= dict(_flattened(_read_settings(output / CONFIG_FILE)))
    for key, value in _flattened(config_to_dict(config)):
        if key not in FREE_KEYS and there.get(key) != value:
            raise UserError(
                f"output={output}: holds a run with other settings ({key} is {there.get(key)} "
                f"there and {value} here); give another output"
            )


def claim_run_folder(config: TrainConfig) -> None:
    """Write the settings, which mark the folder as this run's."""
    config.output.mkdir(parents=True, exist_ok=True)
    replace_text(config.output / CONFIG_FILE, resolved_yaml(config))


class RunLog:
    """log.jsonl and TensorBoard, going on after `step`: later lines, of an interrupted run, go."""

    def __init__(self, output: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = output / LOG_FILE
        rows = [row for row in read_log(output) if row["step"] <= step] if step else []
        replace_text(self.path, "".join(map(_line, rows)))
        self.board = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float | list[float]]) -> None:
        """Add one line; TensorBoard gets the elements of a list as name/00, name/01, ..."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))
        for name, value in values.items():
            if isinstance(value, list):
                for index, element in enumerate(value):
                    self.board.add_scalar(f"{name}/{index:02d}", element, step)
            else:
                self.board.add_scalar(name, value, step)
        self.board.flush()

    def close(self) -> None:
        self.board.close()


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
