"""Two real processes stop together, whichever of them has a reason."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lisa_video.cli import resolved_yaml
from lisa_video.training.checkpoint import checkpoints, step_of
from lisa_video.training.config import TrainConfig
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint
from tests.training.runs import tiny_config

ROOT = Path(__file__).parents[2]

# The second process has NaN in its fourth batch.
SPOILED = """
import sys
import torch
from accelerate import PartialState
from lisa_video.cli import run_job
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.setup import open_backbone

class SpoiledEncoder(ClipEncoder):
    left = 4
    def batch_latents(self, clips):
        self.left -= 1
        latents = super().batch_latents(clips)
        spoiled = self.left == 0 and PartialState().process_index == 1
        return torch.full_like(latents, float("nan")) if spoiled else latents

def run(config):
    train(config, encoder=SpoiledEncoder(open_backbone(config.backbone)))

run_job(TrainConfig, run, description="")
"""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("backbone"))


def launched(
    script: Path, config: TrainConfig, during: Callable[[psutil.Process], None] | None = None
) -> tuple[int, str]:
    """Run a script in two processes; the launcher's exit code and what was said."""
    settings = config.output.with_suffix(".yaml")
    settings.write_text(resolved_yaml(config))
    said = config.output.with_suffix(".txt")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *launcher, str(script), "--config", str(settings)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if during is not None:
        during(psutil.Process(process.pid))
    return process.wait(timeout=300), said.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_saves_and_stops_both(
    rank: int, clips: Path, backbone: Path, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path / "run", str(backbone), steps=10_000, probe__every=0)

    def stop(launcher: psutil.Process) -> None:
        while len(read_log(config.output)) < 3 and launcher.is_running():
            time.sleep(0.1)
        (worker,) = (
            each for each in launcher.children() if each.environ().get("RANK") == str(rank)
        )
        worker.terminate()

    code, said = launched(ROOT / "pipelines/train.py", config, stop)
    assert code == 0, said
    assert len(re.findall(r"stopped after step \d+ of 10000", said)) == 1, said
    (step,) = map(step_of, checkpoints(config.output))
    assert [row["step"] for row in read_log(config.output)] == list(range(1, step + 1))


@pytest.mark.slow
def test_nan_in_one_process_stops_both_with_the_state_before_it(
    clips: Path, backbone: Path, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path / "run", str(backbone), probe__every=0)
    script = tmp_path / "spoiled.py"
    script.write_text(SPOILED)
    code, said = launched(script, config)
    assert code != 0
    errors = re.findall(r"^error: (.*)$", said, re.MULTILINE)
    assert len(set(errors)) == 1, said
    pattern = r"step 4: the loss is nan on clips clip_\d, clip_\d; .*step_00000003"
    assert re.match(pattern, errors[0]), errors[0]
    assert [step_of(path) for path in checkpoints(config.output)] == [3]
    code, said = launched(ROOT / "pipelines/train.py", config)
    assert code == 0, said
    assert [row["step"] for row in read_log(config.output)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_full_disk_stops_both(clips: Path, backbone: Path, tmp_path: Path) -> None:
    """The folder of checkpoints cannot be made: a file has its name."""
    config = tiny_config(clips, tmp_path / "run", str(backbone), probe__every=0, steps=2)

    def spoil(launcher: psutil.Process) -> None:
        while not (config.output / "log.jsonl").exists() and launcher.is_running():
            time.sleep(0.02)
        (config.output / "checkpoints").write_text("")

    code, said = launched(ROOT / "pipelines/train.py", config, spoil)
    assert code != 0
    errors = re.findall(r"^error: (.*)$", said, re.MULTILINE)
    assert len(set(errors)) == 1, said
    assert "the checkpoint of step 2: cannot be written: Not a directory" in errors[0]
