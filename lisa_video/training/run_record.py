"""run.json: what a run was, on which machine, with what, how often interrupted, and what came of it.

It is written when the run starts, at each checkpoint and when it ends, each time whole. Environment
variables are never written, nor user names and passwords within addresses.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import config_to_dict
from lisa_video.errors import UserError
from lisa_video.hardware import describe_hardware
from lisa_video.loading import first_line
from lisa_video.reports import package_versions, replace_text
from lisa_video.training.config import TrainConfig
from lisa_video.training.run_figures import run_figures
from lisa_video.training.run_folder import read_log

RECORD_FILE = "run.json"
FORMAT_VERSION = 1
_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "av")
_PASSWORDS = re.compile(r"(?<=://)[^/@\s]+@")
# Of an earlier part of the run, what the history keeps.
_PART_KEYS = (
    "status",
    "reason",
    "started",
    "ended",
    "first_step",
    "step",
    "command",
    "versions",
    "git",
    "hardware",
)


class RunRecord:
    """The record of a run while `train` is at it, as a context manager that notes how it ends.

    Nothing is written before `start`, which only the main process calls.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.path = config, config.output / RECORD_FILE
        self._values: dict[str, Any] | None = None

    def start(self, step: int, backbone: VideoBackbone, processes: int) -> None:
        """Note a run that begins, or goes on after `step`. What was finished stays as it is."""
        earlier = None if step == 0 else self._earlier()
        if earlier is not None and earlier["status"] == "finished" and step >= self.config.steps:
            return
        config = self.config
        self._values = {
            "format": FORMAT_VERSION,
            "status": "running",
            "reason": None,
            "started": _now(),
            "updated": _now(),
            "ended": None,
            "first_step": step,
            "step": step,
            "steps": config.steps,
            "command": sys.argv,
            "config": config_to_dict(config),
            "seeds": {
                "training": config.seed,
                "probe": config.probe.seed,
                "validation": config.validation.seed,
            },
            "backbone": {
                "kind": backbone.kind,
                "path": config.backbone.path,
                "fingerprint": backbone.fingerprint(),
            },
            "versions": package_versions(*_PACKAGES),
            "hardware": {
                "device": backbone.device.type,
                "processes": processes,
                **describe_hardware(),
            },
            "figures": run_figures(read_log(config.output)),
            "history": [] if earlier is None else [*earlier["history"], _part(earlier)],
        }
        self._write()

    def update(self, step: int) -> None:
        """Note that the run has come to `step`, and the figures so far."""
        if self._values is not None:
            self._values |= {"step": step, "figures": run_figures(read_log(self.config.output))}
            self._write()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._values is None:
            return
        status, reason = _ending(error)
        if status == "finished":
            self.update(self.config.steps)
        self._values |= {"status": status, "reason": reason, "ended": _now()}
        self._write()

    def _write(self) -> None:
        assert self._values is not None
        self._values["updated"] = _now()
        text = json.dumps(self._values, indent=2, ensure_ascii=False, allow_nan=False)
        replace_text(self.path, _PASSWORDS.sub("***@", text) + "\n")

    def _earlier(self) -> dict[str, Any] | None:
        """The record of the run so far; one that cannot be read is kept beside the new one."""
        if not self.path.is_file():
            return None
        try:
            return read_record(self.path.parent)
        except UserError as error:
            aside = self.path.with_suffix(".unreadable.json")
            self.path.replace(aside)
            print(f"{error}; it is now {aside.name}, and the history begins anew")
            return None


def read_record(output: Path) -> dict[str, Any]:
    """What run.json in a run's folder says; UserError where it cannot be read or is of another
    version."""
    path = output / RECORD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{output}: no training run there, it has no {RECORD_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable record: {first_line(error)}") from None
    if not isinstance(values, dict) or "format" not in values:
        raise UserError(f"{path}: not the record of a training run")
    if values["format"] != FORMAT_VERSION:
        raise UserError(
            f"{path}: record format {values['format']}, this version reads {FORMAT_VERSION}"
        )
    return values


def _part(earlier: dict[str, Any]) -> dict[str, Any]:
    """What the history keeps of the part of a run that ended before this one began."""
    part = {key: earlier.get(key) for key in _PART_KEYS}
    if part["status"] == "running":
        part |= {
            "status": "killed",
            "reason": "it ended without a word: killed, or the machine stopped",
            "ended": earlier.get("updated"),
        }
    return part


def _ending(error: BaseException | None) -> tuple[str, str | None]:
    """Status and reason of a run that ends with this exception."""
    if error is None:
        return "finished", None
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted", None
    if isinstance(error, UserError):
        return "failed", str(error)
    return "failed", f"{type(error).__name__}: {first_line(error)}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
