"""The configs under configs/accelerate: what accelerate makes of them, and what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

from lisa_video.cli import resolved_yaml
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint
from tests.training.runs import tiny_config, write_clips

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "accelerate"
TYPES = {
    "one_gpu": "NO",
    "ddp": "MULTI_GPU",
    "fsdp2": "FSDP",
    "fsdp2_gathered": "FSDP",
    "deepspeed_zero2": "DEEPSPEED",
    "deepspeed_zero3": "DEEPSPEED",
    "multi_node_ddp": "MULTI_GPU",
    "multi_node_fsdp2": "FSDP",
    "cpu_two_processes": "MULTI_GPU",
}


def test_there_is_a_file_for_each() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == TYPES.keys()


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_every_key(name: str) -> None:
    """Its own loader refuses unknown keys; those of FSDP it takes as they come."""
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert config.distributed_type.value == TYPES[name]
    assert (config.num_machines > 1) == name.startswith("multi_node")
    known = FullyShardedDataParallelPlugin.__dataclass_fields__.keys() | {"offload_params"}
    for key in config.fsdp_config:
        assert key == "fsdp_version" or key.removeprefix("fsdp_") in known
    if TYPES[name] == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2

    known = DeepSpeedPlugin.__dataclass_fields__.keys()
    assert config.deepspeed_config.keys() <= known
    if TYPES[name] == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(name[-1])

    text = path.read_text()
    assert (
        f"accelerate launch --config_file configs/accelerate/{path.name} " in text.splitlines()[0]
    )
    # The training's own key decides, and accelerate's must not contradict it.
    assert yaml.safe_load(text)["mixed_precision"] == "no"


def test_the_slurm_script_saves_and_goes_on() -> None:
    script = FOLDER / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert text.splitlines()[1].startswith("# sbatch configs/accelerate/slurm.sbatch --config ")
    for line in ("--signal=USR1@", "--requeue", "--resume auto", "scontrol requeue"):
        assert line in text


@pytest.mark.slow
def test_two_processes_start_from_their_config(tmp_path: Path) -> None:
    clips, backbone = write_clips(tmp_path / "clips"), tiny_checkpoint(tmp_path / "backbone")
    config = tiny_config(clips, tmp_path / "run", str(backbone), steps=1, probe__every=0)
    path = tmp_path / "train.yaml"
    path.write_text(resolved_yaml(config))
    launch = ["accelerate.commands.launch", "--config_file", FOLDER / "cpu_two_processes.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "pipelines/train.py", "--config", path],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((config.output / "run.json").read_text())["hardware"]["processes"] == 2
    assert len(read_log(config.output)) == 1
