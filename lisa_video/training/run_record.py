"""run.json: what a run was, on which machine, with what, how often interrupted, and what came of it.

It is written when the run starts, at each checkpoint and when it ends, each time whole. Environment
variables are never written, nor user names and passwords within addresses.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from lisa_video.backbones.base import VideoBackbone
from lisa_video.cli import config_to_dict
from lisa_video.errors import UserError
from lisa_video.hardware import describe_hardware
from lisa_video.loading import first_line
from lisa_video.reports import package_versions, replace_text
from lisa_video.training.config import TrainConfig
from lisa_video.training.provenance import Provenance
from lisa_video.training.run_figures import run_figures
from lisa_video.training.run_folder import read_log

RECORD_FILE = "run.json"
FORMAT_VERSION = 1
_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "av")
_PASSWORDS = re.compile(r"(?<=://)[^/@\s\"]+@")


@dataclass(frozen=True, kw_only=True)
class RunPart:
    """One process's time, or that of several at once, with a run."""

    status: str
    """running, finished, interrupted, failed, or killed, where it ended without a word."""
    reason: str | None
    """Why it failed or was killed."""
    started: str
    """Date and time, as ISO 8601 writes them, in UTC."""
    updated: str
    """When it was last heard of."""
    ended: str | None
    first_step: int
    """Steps that were done before."""
    step: int
    """Steps done when it was last heard of."""
    command: list[str]
    git: str | None
    """Commit, "-dirty" behind it where files differ; None outside of a checkout."""
    sources: str
    """SHA-256 over the package's Python files."""
    versions: dict[str, str]
    """Of Python and of packages."""
    hardware: dict[str, Any]
    """See `describe_hardware`; and the device and number of processes."""
    data: str
    """Fingerprint of the clips, see `provenance`."""


@dataclass(frozen=True, kw_only=True)
class RunSummary(RunPart):
    """A whole run: its newest part, and what holds for all of them."""

    steps: int
    """To do in all."""
    config: dict[str, Any]
    seeds: dict[str, int]
    backbone: dict[str, str]
    """kind, path, and the fingerprint of its weights."""
    figures: dict[str, float | None]
    """See `run_figures`."""
    history: list[RunPart]
    """Earlier parts, first to last."""


class RunRecord:
    """The record of a run while `train` is at it, as a context manager that notes how it ends.

    Nothing is written before `start`, which only the main process calls.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.path = config, config.output / RECORD_FILE
        self._summary: RunSummary | None = None

    def start(
        self, step: int, backbone: VideoBackbone, provenance: Provenance, processes: int
    ) -> None:
        """Note a run that begins, or goes on after `step`. What was finished stays as it is."""
        earlier = self._earlier() if step else None
        if earlier is not None and earlier.status == "finished" and step >= self.config.steps:
            return
        config, now = self.config, _now()
        machine = {"device": backbone.device.type, "processes": processes, **describe_hardware()}
        self._write(
            RunSummary(
                status="running",
                reason=None,
                started=now,
                updated=now,
                ended=None,
                first_step=step,
                step=step,
                command=sys.argv,
                git=provenance.code.commit,
                sources=provenance.code.sources,
                versions=package_versions(*_PACKAGES),
                hardware=machine,
                data=provenance.data,
                steps=config.steps,
                config=config_to_dict(config),
                seeds={
                    "training": config.seed,
                    "probe": config.probe.seed,
                    "validation": config.validation.seed,
                },
                backbone={
                    "kind": backbone.kind,
                    "path": config.backbone.path,
                    "fingerprint": backbone.fingerprint(),
                },
                figures=run_figures(read_log(config.output)),
                history=[] if earlier is None else [*earlier.history, _part(earlier)],
            )
        )

    def update(self, step: int) -> None:
        """Note that the run has come to `step`, and the figures so far."""
        if self._summary is not None:
            figures = run_figures(read_log(self.config.output))
            self._write(replace(self._summary, step=step, figures=figures, updated=_now()))

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._summary is None:
            return
        if error is None:
            self.update(self.config.steps)
        status, reason = _ending(error)
        now = _now()
        ended = replace(self._summary, status=status, reason=reason, updated=now, ended=now)
        # What went wrong, such as a full disk, is told rather than that this cannot be written.
        with nullcontext() if error is None else suppress(OSError):
            self._write(ended)

    def _write(self, summary: RunSummary) -> None:
        self._summary = summary
        values = {"format": FORMAT_VERSION, **asdict(summary)}
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
        replace_text(self.path, _PASSWORDS.sub("***@", text) + "\n")

    def _earlier(self) -> RunSummary | None:
        """The record of the run so far; one that cannot be read is kept beside the new one."""
        if not self.path.is_file():
            return None
        try:
            return read_record(self.path.parent)
        except UserError as error:
            aside = self.path.with_name("run.unreadable.json")
            self.path.replace(aside)
            print(f"{error}; it is now {aside.name}, and the history begins anew")
            return None


def read_record(output: Path) -> RunSummary:
    """What run.json in a run's folder says; UserError where it cannot be read or is of another
    version."""
    path = output / RECORD_FILE
    try:
        text = path.read_bytes()
        values = msgspec.json.decode(text, type=dict[str, Any])
        if values.get("format") == FORMAT_VERSION:
            return msgspec.json.decode(text, type=RunSummary)
    except FileNotFoundError:
        raise UserError(f"{output}: no training run there, it has no {RECORD_FILE}") from None
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a readable record of a run: {first_line(error)}") from None
    raise UserError(
        f"{path}: record format {values.get('format')}, this version reads {FORMAT_VERSION}"
    )


def _part(summary: RunSummary) -> RunPart:
    """What the history keeps of the part of a run that ended before this one began."""
    part = RunPart(**{field.name: getattr(summary, field.name) for field in fields(RunPart)})
    if part.status != "running":
        return part
    reason = "it ended without a word: killed, or the machine stopped"
    return replace(part, status="killed", reason=reason, ended=part.updated)


def _ending(error: BaseException | None) -> tuple[str, str | None]:
    """Status and reason of a run that ends with this exception."""
    if error is None:
        return "finished", None
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted", str(error) or None
    if isinstance(error, UserError):
        return "failed", str(error)
    text = first_line(error) if isinstance(error, Exception) else str(error)
    return "failed", f"{type(error).__name__}: {text}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
