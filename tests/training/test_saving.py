"""When a run is saved, what it keeps, and how it stops."""

import ctypes
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lisa_video.caching.clips import EncodedBatch
from lisa_video.dataset import ClipBatch
from lisa_video.errors import UserError
from lisa_video.training.checkpoint import (
    checkpoints,
    latest_checkpoint,
    load_state,
    step_of,
    verify_checkpoint,
)
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.interruption import Interrupted
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.saving import disk_full_named, kept_steps, prune_checkpoints, room_for
from lisa_video.training.state import TrainState
from tests.training import forks
from tests.training.runs import assert_same_runs, tiny_config


def short_config(clips: Path, output: Path, **changes: Any) -> TrainConfig:
    """Six steps and no probe."""
    return tiny_config(clips, output, **({"probe__every": 0} | changes))


@pytest.fixture(scope="module")
def whole(
    clips: Path, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    """A run that nothing disturbed."""
    config = short_config(clips, tmp_path_factory.mktemp("whole") / "run")
    train(config, encoder=encoder)
    return config


def steps_of(config: TrainConfig) -> list[int]:
    return [step_of(path) for path in checkpoints(config.output)]


# What is kept.


@pytest.mark.parametrize("seed", range(30))
def test_newest_and_best_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = sorted(rng.choice(100, rng.integers(1, 12), replace=False).tolist())
    values = {step: float(rng.integers(5)) for step in range(100) if rng.random() < 0.6}
    newest, best = int(rng.integers(1, 5)), int(rng.integers(0, 5))
    for more in (True, False):
        kept = kept_steps(steps, values, newest=newest, best=best, more_is_better=more)
        assert kept <= set(steps) and set(steps[-newest:]) <= kept
        rest = {step for step in steps if step in values} - kept
        others = kept - set(steps[-newest:])
        assert len(others) <= best
        if len(rest) and best:
            top = sorted((values[s] for s in steps if s in values), reverse=more)[:best]
            assert all(values[s] in top for s in others)
            assert all((values[s] <= top[-1]) if more else (values[s] >= top[-1]) for s in rest)


def test_best_by_the_probe_is_kept_beside_the_newest(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(
        clips,
        tmp_path,
        probe__every=1,
        checkpoint_every=1,
        keep_checkpoints=1,
        keep_best=2,
        best_metric="probe/true",
    )
    train(config, encoder=encoder)
    losses = {row["step"]: row["probe/true"] for row in read_log(tmp_path) if row["step"]}
    assert len(losses) == 6
    best = sorted(losses, key=lambda step: losses[step])[:2]
    assert steps_of(config) == sorted({*best, 6})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"best_metric": "probe/gain"}, "unknown 'probe/gain', known: probe/gap"),
        ({"probe__every": 0, "keep_best": 1}, "no step has both .*probe.every=0"),
        ({"checkpoint_every": 4, "keep_best": 1}, "checkpoint_every=4"),
        ({"keep_best": -1}, "keep_best=-1"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes=-1"),
    ],
)
def test_settings_that_cannot_be_followed(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        tiny_config(Path("clips"), Path("run"), **changes)


def test_saving_by_minutes(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    """Steps are counted as well; so short a time is over after every step."""
    config = short_config(
        clips, tmp_path, checkpoint_minutes=1e-9, checkpoint_every=100, keep_checkpoints=9
    )
    train(config, encoder=encoder)
    assert steps_of(config) == [1, 2, 3, 4, 5, 6]


# Signals.


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_saves_and_stops_and_the_run_goes_on(
    name: str, whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run")
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def stop(step: int, _: TrainState) -> None:
        if step == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as stopped:
        train(config, encoder=encoder, on_step=stop)
    assert signal.getsignal(number) is before
    message = str(stopped.value)
    assert message.startswith(f"{name}: stopped after step 4 of 6, saved in {config.output}")
    assert "\n" not in message
    assert steps_of(config) == [4]
    if name == "SIGTERM":
        train(config, encoder=encoder)
        assert_same_runs(whole.output, config.output)


def test_ctrl_c_reaches_reading_processes_too_late(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """The terminal sends it to all processes of a job."""
    config = short_config(clips, tmp_path / "run", steps=500, data__workers=2)

    def run() -> None:
        os.setpgrp()
        with pytest.raises(Interrupted):
            train(config, encoder=encoder)

    said = tmp_path / "said.txt"
    child = forks.start(run, said)
    while len(read_log(config.output)) < 2:
        time.sleep(0.05)
    os.killpg(child, signal.SIGINT)
    assert forks.end(child) == 0, said.read_text()
    (step,) = steps_of(config)
    rows = read_log(config.output)
    assert [row["step"] for row in rows] == list(range(1, step + 1))
    expected = [row["loss"] for row in read_log(whole.output)][:step]
    assert [row["loss"] for row in rows][: len(expected)] == expected


def test_a_signal_in_the_last_step_ends_the_run_as_ever(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run")

    def stop(step: int, _: TrainState) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    train(config, encoder=encoder, on_step=stop)
    assert_same_runs(whole.output, config.output)


def test_training_works_outside_of_the_main_thread(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run")
    thread = threading.Thread(target=lambda: train(config, encoder=encoder))
    thread.start()
    thread.join()
    assert_same_runs(whole.output, config.output)


# Numbers that are not finite.


class SpoiledEncoder(ClipEncoder):
    """Gives NaN instead of the n-th batch."""

    def __init__(self, encoder: ClipEncoder, batch: int) -> None:
        super().__init__(encoder.backbone, cache=True)
        self.left = batch

    def batch_latents(self, clips: ClipBatch | EncodedBatch) -> Tensor:
        self.left -= 1
        latents = super().batch_latents(clips)
        return latents if self.left else torch.full_like(latents, float("nan"))


def test_a_loss_that_is_not_finite_leaves_the_state_before_it(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run", checkpoint_every=2)
    message = r"step 4: the loss is nan on clips clip_\d, clip_\d; .*step_00000003"
    with pytest.raises(UserError, match=message):
        train(config, encoder=SpoiledEncoder(encoder, batch=4))
    assert steps_of(config) == [2, 3]
    train(config, encoder=encoder)
    assert_same_runs(whole.output, config.output)


def test_a_gradient_that_is_not_finite_changes_nothing(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run")

    def spoil(step: int, state: TrainState) -> None:
        if step == 2:
            weight = state.networks.side_network.conv_in.weight
            weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(UserError, match=r"step 3: the gradient's norm is (inf|nan) on clips clip_"):
        train(config, encoder=encoder, on_step=spoil)
    assert steps_of(config) == [2]
    train(config, encoder=encoder)
    assert_same_runs(whole.output, config.output)


def test_weights_that_are_not_finite_are_not_saved(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run", checkpoint_every=2)

    def spoil(step: int, state: TrainState) -> None:
        if step == 3:
            with torch.no_grad():
                state.networks.side_network.conv_in.weight.fill_(float("nan"))

    with pytest.raises(UserError, match=r"step 4: .*kept in .*step_00000002"):
        train(config, encoder=encoder, on_step=spoil)
    assert steps_of(config) == [2]


# Full disks.


@pytest.mark.parametrize("what", ["the checkpoint of step 4", "a file of the run"])
def test_a_write_that_fails_keeps_the_last_checkpoint(
    what: str,
    whole: TrainConfig,
    clips: Path,
    encoder: ClipEncoder,
    tmp_path: Path,
) -> None:
    config = short_config(clips, tmp_path / "run", checkpoint_every=2)

    def limit_files(step: int, _: TrainState) -> None:
        if step == 3:
            logged = (config.output / "log.jsonl").stat().st_size
            limit = 30_000 if "checkpoint" in what else logged + 10
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def run() -> None:
        try:
            train(config, encoder=encoder, on_step=limit_files)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    said = tmp_path / "said.txt"
    assert forks.run(run, said) == 2
    (message,) = re.findall(r"^error: (.*)$", said.read_text(), re.MULTILINE)
    assert what in message and "File too large" in message and "bytes" in message, message
    assert message.endswith(f"goes on from {latest_checkpoint(config.output)}")
    assert [path.name for path in (config.output / "checkpoints").iterdir()] == ["step_00000002"]
    train(config, encoder=encoder)
    assert_same_runs(whole.output, config.output)


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"the disk is full; it needs 1,\d{3},.* bytes, .* are free"),
        room_for(tmp_path, 10**18, "the checkpoint of step 3"),
    ):
        raise AssertionError("written although there is no room")


def test_other_errors_than_a_full_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_full_named(tmp_path):
        raise PermissionError(errno.EACCES, "denied")
    problem = r"frames\.mp4: cannot be written: No space left"
    with pytest.raises(UserError, match=problem), disk_full_named(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "frames.mp4")


# Leftovers.


def test_what_killed_saves_left_is_cleared_up(
    whole: TrainConfig, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path / "run", steps=3, checkpoint_every=3)
    train(config, encoder=encoder)
    folder = config.output / "checkpoints"
    for name in (".step_00000004.tmp", ".step_00000001.gone"):
        (folder / name).mkdir()
        (folder / name / "state.pt").write_bytes(b"half")
    os.replace(config.output / "side_network", config.output / ".side_network.old")
    for name in (".config.yaml.123.tmp", ".log.123.tmp.jsonl"):
        (config.output / name).write_text("half")
    config = short_config(clips, tmp_path / "run", checkpoint_every=3)
    train(config, encoder=encoder)
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000003", "step_00000006"]
    assert not [path.name for path in config.output.glob(".*") if path.name != ".lock"]
    assert_same_runs(whole.output, config.output)
    assert load_state(folder / "step_00000003").step == 3


def test_fewer_kept_checkpoints_take_effect_at_the_next_save(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = short_config(clips, tmp_path, checkpoint_every=1, keep_checkpoints=4)
    train(config, encoder=encoder)
    assert steps_of(config) == [3, 4, 5, 6]
    prune_checkpoints(short_config(clips, tmp_path, keep_checkpoints=1))
    assert steps_of(config) == [6]


@pytest.mark.slow
def test_a_full_disk_of_its_own(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    """In a file system of eight MiB that this test mounts, where the machine allows it."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    disk, said = tmp_path / "disk", tmp_path / "said.txt"
    disk.mkdir()
    config = short_config(clips, disk / "run", checkpoint_every=1, keep_checkpoints=9)

    def run() -> None:
        mount_small(disk)
        try:
            train(config, encoder=encoder)
        finally:
            names = [path.name for path in (disk / "run" / "checkpoints").iterdir()]
            os.write(1, f"kept: {' '.join(names)}\n".encode())
            verify_checkpoint(latest_checkpoint(config.output) or disk)

    assert forks.run(run, said) == 2, said.read_text()
    (message,) = re.findall(r"^error: (.*)$", said.read_text(), re.MULTILINE)
    assert re.search(r"(disk is full|No space left).*bytes.* free; the same command", message)
    (kept,) = re.findall(r"^kept: (.*)$", said.read_text(), re.MULTILINE)
    names = sorted(kept.split())
    assert names == [f"step_{step:08d}" for step in range(1, len(names) + 1)]


def mount_small(folder: Path) -> None:
    """Give this process, and no other, an empty file system of eight MiB there."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x10000000 | 0x00020000) == 0  # CLONE_NEWUSER, CLONE_NEWNS
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
