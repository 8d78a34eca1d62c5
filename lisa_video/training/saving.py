"""When a run is saved, and which checkpoints it keeps."""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from safetensors import SafetensorError
from torch import Tensor

from lisa_video.errors import UserError
from lisa_video.loading import first_line
from lisa_video.training.agreement import any_process, from_all_processes, in_main_process
from lisa_video.training.checkpoint import (
    FOLDER,
    CheckpointState,
    Networks,
    Weights,
    checkpoints,
    latest_checkpoint,
    save_checkpoint,
    save_network,
    step_of,
)
from lisa_video.training.config import TrainConfig
from lisa_video.training.config.run import MORE_IS_BETTER
from lisa_video.training.folders import mend_folders, remove_folder, replace_folder, sync_file
from lisa_video.training.interruption import Interrupted, Interruption
from lisa_video.training.provenance import Provenance
from lisa_video.training.run_folder import LOG_FILE, VIDEOS_FOLDER, is_leftover, read_log

_LISTED_CLIPS = 8
# A full disk, a user's share of it, and the largest file that is allowed.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made of."""

    networks: Networks
    state: CheckpointState
    weights: Weights | None = None
    """Gathered weights, where processes share networks among them."""


class CheckpointKeeper:
    """Saves a run, and stops it where a signal or a number that is not finite says so.

    All processes of the run have one and call it together. `snapshot(step)` is called in all of
    them, and what it gives in the main process is written there. `step` is that of the checkpoint
    which the run goes on from, or 0.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        snapshot: Callable[[int], Snapshot],
        provenance: Provenance | None,
        interruption: Interruption,
        step: int,
    ) -> None:
        self.config, self.accelerator, self.snapshot = config, accelerator, snapshot
        self.provenance = provenance
        """Of the run; None but in the main process."""
        self.interruption, self.saved = interruption, step
        self._saved_at = time.monotonic()
        self._stopped_after: int | None = None

    # Numbers that are not finite.

    def require_finite_loss(self, step: int, loss: Tensor, ids: Sequence[str]) -> None:
        """UserError in all processes where the loss of any is not finite; before its backward.

        The error names the clips, and the state before `step` is saved.
        """
        wrong = not torch.isfinite(loss)
        if any(any_process(self.accelerator, wrong)):
            found = [(loss.item(), list(ids))] if wrong else []
            self._give_up(step, "the loss", from_all_processes(found))

    def require_finite_gradient(self, step: int, norm: Any, ids: Sequence[str]) -> None:
        """The same of the gradient's norm, which all processes share; `ids` are the step's clips.

        With fp16 it may be infinite: the gradient scaler then leaves the step out.
        """
        if self.accelerator.scaler is None and not math.isfinite(norm):
            found = from_all_processes([(float(norm), list(ids))])
            self._give_up(step, "the gradient's norm", found)

    def _give_up(self, step: int, what: str, found: Sequence[tuple[float, list[str]]]) -> None:
        value, ids = found[0][0], [each for _, some in found for each in some]
        listed = ", ".join(ids[:_LISTED_CLIPS])
        if len(ids) > _LISTED_CLIPS:
            listed += f" and {len(ids) - _LISTED_CLIPS} more"
        if 1 < step != self.saved + 1:
            snapshot = self.snapshot(step - 1)
            in_main_process(self.accelerator, lambda: self._write_finite(snapshot))
        kept = in_main_process(self.accelerator, lambda: latest_checkpoint(self.config.output))
        saved = (
            f"; the run before it is kept in {kept}, which another run can start from"
            if kept
            else ""
        )
        raise UserError(
            f"step {step}: {what} is {value} on clips {listed}; look at these clips, or lower "
            f"optimizer.lr{saved}"
        )

    def _write_finite(self, snapshot: Snapshot) -> None:
        """Older checkpoints stay as well: what went wrong may have begun before this one."""
        named = snapshot.networks.named()
        weights = snapshot.weights or {name: model.state_dict() for name, model in named.items()}
        if all(
            bool(torch.isfinite(each).all()) for some in weights.values() for each in some.values()
        ):
            self._write(snapshot, prune=False)

    # Checkpoints.

    def after_step(self, step: int) -> bool:
        """Save where it is time to; whether the run has to stop now, because of a signal."""
        stopping, late = any_process(
            self.accelerator, self.interruption.signal is not None, self._is_late()
        )
        config = self.config
        if stopping or late or step % config.checkpoint_every == 0 or step == config.steps:
            self.save(step)
        if stopping and step < config.steps:
            self._stopped_after = step
        return self._stopped_after is not None

    def end(self) -> None:
        """Raise Interrupted where `after_step` said that the run has to stop."""
        if self._stopped_after is not None:
            raise Interrupted(
                f"{self.interruption.signal or 'a signal'}: stopped after step "
                f"{self._stopped_after} of {self.config.steps}, saved in "
                f"{latest_checkpoint(self.config.output)}; the same command goes on from there"
            )

    def save(self, step: int) -> None:
        """Save the state after `step`, unless it is saved already, and remove what is not kept.

        Raises UserError in all processes where it cannot be written; what was saved stays.
        """
        if step != self.saved:
            snapshot = self.snapshot(step)
            in_main_process(self.accelerator, lambda: self._write(snapshot, prune=True))
            self.saved = step
        self._saved_at = time.monotonic()

    def _write(self, snapshot: Snapshot, *, prune: bool) -> None:
        assert self.provenance is not None
        output, state = self.config.output, snapshot.state
        with room_for(output, _bytes_of(snapshot), f"the checkpoint of step {state.step}"):
            # A checkpoint never has steps that the log has lost.
            sync_file(output / LOG_FILE)
            save_checkpoint(
                output, snapshot.networks, state, self.provenance, weights=snapshot.weights
            )
        if prune:
            prune_checkpoints(self.config)

    def _is_late(self) -> bool:
        minutes = self.config.checkpoint_minutes
        late = 0 < 60 * minutes <= time.monotonic() - self._saved_at
        return late and self.accelerator.is_main_process


def prune_checkpoints(config: TrainConfig) -> None:
    """Remove the checkpoints of a run that its settings do not keep."""
    found = checkpoints(config.output)
    metric = config.best_metric
    values: dict[int, float] = {}
    if config.keep_best:
        rows = read_log(config.output)
        values = {row["step"]: row[metric] for row in rows if row.get(metric) is not None}
    kept = kept_steps(
        [step_of(path) for path in found],
        values,
        newest=config.keep_checkpoints,
        best=config.keep_best,
        more_is_better=MORE_IS_BETTER[metric],
    )
    for path in found:
        if step_of(path) not in kept:
            remove_folder(path)


def kept_steps(
    steps: Sequence[int],
    values: Mapping[int, float],
    *,
    newest: int,
    best: int,
    more_is_better: bool,
) -> set[int]:
    """Those of `steps` to keep: the `newest` last ones, and the `best` of all by `values`.

    Of equal values the later is the better one; steps without a value are never among the best.
    """
    sign = 1 if more_is_better else -1
    scored = [step for step in steps if step in values]
    ranked = sorted(scored, key=lambda step: (sign * values[step], step), reverse=True)
    return {*sorted(steps)[-newest:], *ranked[:best]}


def save_finished(output: Path, networks: Networks, weights: Weights | None = None) -> None:
    """Write the networks for use: `side_network/` and, where there are such, `decoder/` and `lora/`.

    Raises UserError where they cannot be written.
    """
    finished: dict[str, tuple[ModelMixin, str]] = {}
    if networks.decoder is not None:
        finished["decoder"] = (networks.decoder, "decoder")
    if networks.finished_lora is not None:
        finished["lora"] = (networks.finished_lora, "lora")
    # Last: where it lies, the run is done.
    key = "side_network" if networks.average is None else "average"
    finished["side_network"] = (networks.finished, key)
    for name, (model, key) in finished.items():
        with room_for(output, _model_bytes(model), f"the finished {name}"):
            write = partial(save_network, model, weights=(weights or {}).get(key))
            replace_folder(output / name, write)


def clear_leftovers(output: Path) -> None:
    """Clear up what killed processes of a run left of files and folders."""
    for folder in (FOLDER, VIDEOS_FOLDER):
        mend_folders(output / folder, "step_*")
    for name in ("side_network", "decoder", "lora"):
        mend_folders(output, name)
    for left in output.glob(".*.tmp"):
        if is_leftover(left):
            left.unlink()


@contextmanager
def room_for(output: Path, needed: int, what: str) -> Iterator[None]:
    """Raise UserError where `output` has fewer than `needed` bytes free, or writing fails."""
    free = shutil.disk_usage(output).free
    if free < needed:
        raise _no_room(output, what, needed, "the disk is full")
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise _no_room(output, what, needed, f"cannot be written: {reason}") from None


@contextmanager
def disk_full_named(output: Path) -> Iterator[None]:
    """Raise UserError where writing anything else of a run fails for want of room."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        what = str(error.filename or "a file of the run")
        raise _no_room(output, what, None, f"cannot be written: {error.strerror}") from None


def _no_room(output: Path, what: str, needed: int | None, problem: str) -> UserError:
    free = shutil.disk_usage(output).free
    room = f"{free:,} bytes are free"
    if needed is not None:
        room = f"it needs {needed:,} bytes, {free:,} are free"
    kept = latest_checkpoint(output)
    way = f"the same command goes on from {kept}" if kept else "nothing of the run is saved yet"
    return UserError(f"{output}: {what}: {problem}; {room}; {way}")


def _bytes_of(snapshot: Snapshot) -> int:
    models = snapshot.networks.named().values()
    return sum(map(_model_bytes, models)) + _tensor_bytes(snapshot.state.optimizer)


def _model_bytes(model: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _tensor_bytes(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, Mapping):
        return sum(map(_tensor_bytes, values.values()))
    return sum(map(_tensor_bytes, values)) if isinstance(values, list | tuple) else 0
