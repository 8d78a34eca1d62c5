"""The shared command line, on a small job that is run as its users run it: as a script."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lisa_video.benchmarks.config import EconomyBenchmarkConfig
from lisa_video.benchmarks.data_config import DecodeBenchmarkConfig
from lisa_video.cli import with_changes
from lisa_video.errors import UserError

ROOT = Path(__file__).parents[1]
JOBS = sorted([*ROOT.glob("pipelines/*.py"), *ROOT.glob("demo/*.py")])

JOB = '''
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lisa_video.cli import run_job
from lisa_video.errors import UserError


@dataclass(frozen=True)
class Optimiser:
    """How the weights move."""

    steps: int = 5
    """Number of optimiser steps."""
    learning_rate: float = 1e-5
    """Step size of AdamW."""

    def __post_init__(self):
        if self.steps < 1:
            raise UserError("optimiser.steps must be at least 1")


@dataclass(frozen=True)
class Config:
    """A small job."""

    data: Path
    """Folder of the dataset."""
    objective: Literal["plain", "lisa"] = "lisa"
    """What is minimised."""
    size: tuple[int, int] = (64, 48)
    """Width and height in pixels."""
    prompt: str | None = None
    """Text that guides the clip."""
    keep_going: bool = False
    """Do not stop at the first bad clip."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    """How the weights move."""


def check(config):
    print("checked")
    if config.data == Path("missing"):
        raise UserError("no dataset at missing: make one\\nwith pipelines/prepare.py")


def run(config):
    if config.prompt == "wait":
        raise KeyboardInterrupt
    if config.prompt == "fail":
        raise UserError("frame 7 has NaN keypoints")
    if config.prompt == "bug":
        raise ValueError("not the user's fault")
    print(config)


if __name__ == "__main__":
    run_job(Config, run, check=check, description="Train a small thing.")
'''


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("job") / "job.py"
    path.write_text(JOB)
    return path


def launch(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_fails_with(result: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    lines = result.stderr.splitlines()
    assert result.returncode == code, result.stderr
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def test_config_file_and_flags_reach_the_job(job: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: clips\nsize: [32, 16]\noptimiser: {steps: 7, learning_rate: 1e-3}\n")
    result = launch(job, "--config", str(file), "--optimiser.steps", "9", "--prompt", "a: man")
    assert result.returncode == 0, result.stderr
    assert "checked" in result.stdout
    assert "data=PosixPath('clips')" in result.stdout
    assert "size=(32, 16), prompt='a: man'" in result.stdout
    assert "Optimiser(steps=9, learning_rate=0.001)" in result.stdout


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--keep-going"], True),
        (["--keep_going", "--prompt", "x"], True),
        (["--keep_going", "true"], True),
        (["--keep_going=false"], False),
        ([], False),
    ],
)
def test_a_switch_may_stand_alone(job: Path, flags: list[str], expected: bool) -> None:
    result = launch(job, *flags, "--data", "clips")
    assert result.returncode == 0, result.stderr
    assert f"keep_going={expected}" in result.stdout


def test_dry_run_checks_prints_the_config_and_stops(job: Path, tmp_path: Path) -> None:
    result = launch(job, "--data", "clips", "--prompt", "42", "--dry-run")
    assert result.returncode == 0, result.stderr
    checked, resolved = result.stdout.split("\n", 1)
    assert checked == "checked" and "Config(" not in resolved
    assert "prompt: '42'" in resolved and "  steps: 5" in resolved

    file = tmp_path / "resolved.yaml"
    file.write_text(resolved)
    again = launch(job, "--config", str(file), "--dry-run")
    assert again.stdout == result.stdout


def test_dry_run_reports_what_check_finds(job: Path) -> None:
    result = launch(job, "--data", "missing", "--dry-run")
    assert_fails_with(result, "error: no dataset at missing: make one with pipelines/prepare.py")
    assert "optimiser" not in result.stdout


def test_help_shows_field_docstrings(job: Path) -> None:
    result = launch(job, "--help")
    assert result.returncode == 0, result.stderr
    for text in ("Train a small thing.", "Step size of AdamW.", "Width and height in pixels."):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("yaml", "parts"),
    [
        ("data: x\noptimizer: {steps: 3}", ["unknown key 'optimizer'", "nearest is 'optimiser'"]),
        ("data: x\noptimiser: {step: 3}", ["'optimiser.step'", "nearest is 'optimiser.steps'"]),
        ("data: x\nsteps: 3", ["unknown key 'steps'", "nearest is 'optimiser.steps'"]),
        ("data: x\ndry_run: true", ["unknown key 'dry_run'"]),
        ("data: x\n1: 2", ["unknown key '1'"]),
        ("data: x\noptimiser:", ["'optimiser' is a section"]),
        ("data: x\noptimiser: {steps: many}", ["optimiser.steps", "int", "many"]),
        ("data: x\nobjective: other", ["objective", "'plain', 'lisa'", "other"]),
        ("data: [x", ["not valid YAML at line 1"]),
        ("data: \x00", ["not valid YAML"]),
        ("- data", ["a config is a mapping"]),
        ("", ["a config is a mapping"]),
    ],
)
def test_mistakes_in_the_file(job: Path, tmp_path: Path, yaml: str, parts: list[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml)
    assert_fails_with(launch(job, "--config", str(file)), f"error: {file}: ", *parts)


def test_file_that_is_not_there_or_not_text(job: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    assert_fails_with(launch(job, f"--config={absent}"), str(absent), "No such file")
    assert_fails_with(launch(job, "--config", str(tmp_path)), str(tmp_path), "directory")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\xd6")
    assert_fails_with(launch(job, "--config", str(binary)), str(binary), "not valid YAML")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--optimiser.step", "3"], ["unknown flag --optimiser.step", "--optimiser.steps"]),
        (["--dat=x"], ["unknown flag --dat", "nearest is --data"]),
        (["--data", "x", "--optimiser.steps", "many"], ["--optimiser.steps", "int", "many"]),
        (["--data", "x", "--optimiser.steps"], ["--optimiser.steps", "expected one argument"]),
        (["--data", "x", "--optimiser.steps", "0"], ["error: optimiser.steps must be at least 1"]),
        (["--data", "x", "stray"], ["stray"]),
        (["--config"], ["--config", "expected one argument"]),
        ([], ["required", "data"]),
    ],
)
def test_mistakes_in_the_flags(job: Path, arguments: list[str], parts: list[str]) -> None:
    assert_fails_with(launch(job, *arguments), "error: ", *parts)


def test_user_error_and_interrupt_inside_the_job_are_one_line(job: Path) -> None:
    failed = launch(job, "--data", "x", "--prompt", "fail")
    assert_fails_with(failed, "error: frame 7 has NaN keypoints")
    assert_fails_with(launch(job, "--data", "x", "--prompt", "wait"), "interrupted", code=130)


def test_a_bug_keeps_its_traceback(job: Path) -> None:
    result = launch(job, "--data", "x", "--prompt", "bug")
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.parametrize("script", ["job", *JOBS], ids=lambda script: Path(script).stem)
def test_help_loads_nothing_heavy(script: str | Path, job: Path, tmp_path: Path) -> None:
    """Time is not asserted, its cause is: these imports take seconds each."""
    path = job if script == "job" else script
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import runpy, sys\n"
        f"sys.argv = [{str(path)!r}, '--help']\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'cv2', 'decord', 'matplotlib', 'scipy'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    result = launch(runner)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("loaded: []\n"), result.stdout


# Changes of a config that is there.


def test_changes_are_validated_as_a_file_is() -> None:
    config = DecodeBenchmarkConfig(videos=[Path("a.mp4")], key_intervals=[3, 4])
    changed = with_changes(config, {"windows": 5, "videos": ["b.mp4"]}, "here")
    assert changed == replace(config, windows=5, videos=[Path("b.mp4")])
    nested = EconomyBenchmarkConfig(fraction=0.5)
    both = with_changes(nested, {"step.frames": 4, "step": {"batch_size": 2}}, "here")
    assert both == replace(nested, step=replace(nested.step, frames=4, batch_size=2))
    assert with_changes(nested, {}, "here") == nested


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"step.frame": 4}, "here: unknown key 'step.frame', nearest is 'step.frames'"),
        ({"step": {"frame": 4}}, "here: unknown key 'step.frame'"),
        ({"step": 3}, "here: 'step' is a section"),
        ({"step.frames": "many"}, "here: .*step.frames"),
        ({"step.frames": 0}, "here: frames=0: must be at least 1"),
        ({"every": 20_000}, "here: every=20000"),
    ],
)
def test_changes_that_do_not_fit(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        with_changes(EconomyBenchmarkConfig(), changes, "here")
