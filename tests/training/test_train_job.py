"""The training job from its command line: what it refuses, and one small run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lisa_video.cli import parse_config
from lisa_video.training.config import TrainConfig
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_backbone, tiny_checkpoint
from tests.tiny_controlnet import tiny_controlnet
from tests.training.runs import launch, tiny_config, written

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("backbone"))


def write_config(tmp_path: Path, clips: Path, backbone: Path, **changes: object) -> Path:
    return written(tmp_path, tiny_config(clips, tmp_path / "run", str(backbone), **changes))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the CPU with these arguments, as a process of its own."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )


SHIPPED = [*ROOT.glob("configs/*/train_[lp]*.yaml"), *ROOT.glob("configs/*/*_lisa.yaml")]


@pytest.mark.parametrize(
    "path", sorted(set(SHIPPED)), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_shipped_settings_are_valid(path: Path) -> None:
    arguments = ["--config", str(path), "--data.root", "clips"]
    config, _ = parse_config(TrainConfig, arguments, "")
    assert config.backbone.kind == path.parent.name
    assert config.objective == path.stem.rpartition("_")[2]
    assert config.output.parent == Path("outputs")


def test_shipped_runs_do_not_share_a_folder() -> None:
    outputs = [yaml.safe_load(path.read_text())["output"] for path in set(SHIPPED)]
    assert len(set(outputs)) == len(outputs) >= 5


@pytest.mark.parametrize("kind", ["animatediff", "wan"])
def test_plain_and_lisa_settings_are_a_fair_pair(kind: str) -> None:
    texts = [
        (ROOT / "configs" / kind / f"train_{objective}.yaml").read_text()
        for objective in ("plain", "lisa")
    ]
    plain, lisa = map(yaml.safe_load, texts)
    assert {key for key in lisa if plain[key] != lisa[key]} == {"objective", "output"}


def test_job_trains_and_repeats_cheaply(tmp_path: Path, clips: Path, backbone: Path) -> None:
    config = write_config(tmp_path, clips, backbone, steps=2)
    done = script("pipelines/train.py", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert "side network of step 2" in done.stdout
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    assert launch(config) is None
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log
    assert [row["step"] for row in read_log(tmp_path / "run")] == [0, 1, 2]
    assert (tmp_path / "run" / "side_network" / "config.json").is_file()


def test_job_starts_from_a_controlnet_and_says_so_once(
    tmp_path: Path, clips: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "controlnet"
    tiny_controlnet().save_pretrained(folder)
    config = write_config(
        tmp_path, clips, backbone, steps=1, probe__every=0, side_network__controlnet=str(folder)
    )
    assert launch(config) is None
    told = [line for line in capsys.readouterr().out.splitlines() if "side network: from" in line]
    assert len(told) == 2
    assert f"from {folder}: " in told[0]
    assert "from the backbone: motion modules" in told[1]
    saved = json.loads((tmp_path / "run" / "side_network" / "config.json").read_text())
    assert saved["pose_channels"] == [6, 8, 10]
    assert launch(config) is None
    assert "side network: from" not in capsys.readouterr().out

    other = tmp_path / "other"
    tiny_controlnet(cross_attention_dim=24).save_pretrained(other)
    for flags, part in [
        (["--side_network.controlnet", str(other)], "text width (24, 24)"),
        (["--side_network.init_from", str(other)], "give either init_from or controlnet"),
    ]:
        assert launch(config, *flags, "--output", str(tmp_path / "new")) == 2
        assert_one_line(capsys, part)


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(
    tmp_path: Path, clips: Path, backbone: Path
) -> None:
    spread = {"pose_dropout": 0.0, "alignment__frame_weighting": False, "steps": 3}
    logs = []
    for processes, batch_size in ((1, 4), (2, 2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        config = write_config(folder, clips, backbone, data__batch_size=batch_size, **spread)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = script(*launcher, "pipelines/train.py", "--config", str(config))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("side network of step 3") == 1
        logs.append(read_log(folder / "run"))
    assert len(logs[0]) == len(logs[1]) == 4
    for one, two in zip(*logs, strict=True):
        for name in {"loss", "main", "alignment", "grad_norm", "probe/true"} & one.keys():
            assert one[name] == pytest.approx(two[name], rel=1e-4), name


def test_dry_run_writes_nothing(
    tmp_path: Path, clips: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, clips, backbone)
    assert launch(config, "--dry-run") is None
    assert yaml.safe_load(capsys.readouterr().out)["objective"] == "lisa"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--optimizer.learning_rate", "1"], ["unknown flag --optimizer.learning_rate"]),
        (["--backbone.path", "/nowhere"], ["/nowhere"]),
        (["--backbone.kind", "other"], ["unknown backbone 'other'", "animatediff"]),
        (["--data.root", "/nowhere"], ["/nowhere"]),
        (["--data.split", "other"], ["no split 'other'", "train"]),
        (["--data.validation_split", "other"], ["no split 'other'", "validation"]),
        (["--data.frames", "7"], ["has 6 frames", "window of 7"]),
        (["--data.frames", "32"], ["data.frames=32", "at most 16"]),
        (["--data.size", "[18, 16]"], ["data.size=[18, 16]", "multiples of 4"]),
        (["--alignment.tap", "down_9"], ["down_9", "down_0", "mid"]),
        (["--side_network.injection", "[down_9]", "--objective", "plain"], ["down_9", "down_0"]),
        (["--side_network.init_from", "/nowhere"], ["/nowhere"]),
        (["--mixed_precision", "fp16"], ["mixed_precision=fp16", "GPU"]),
        (["--steps", "0"], ["steps=0"]),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    clips: Path,
    backbone: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    parts: list[str],
) -> None:
    assert launch(write_config(tmp_path, clips, backbone), *flags) == 2
    assert_one_line(capsys, *parts)
    assert not (tmp_path / "run").exists()


def test_unknown_key_in_the_file(
    tmp_path: Path, clips: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, clips, backbone)
    config.write_text(config.read_text().replace("warmup_steps", "warm_up_steps"))
    assert launch(config) == 2
    assert_one_line(capsys, "optimizer.warm_up_steps", "optimizer.warmup_steps")


def test_checkpoint_of_another_backbone_and_folder_of_another_run(
    tmp_path: Path, clips: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "backbone"
    shutil.copytree(backbone, mine)
    config = write_config(tmp_path, clips, mine, steps=1, probe__every=0)
    assert launch(config) is None
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    capsys.readouterr()

    assert launch(config, "--seed", "4") == 2
    assert_one_line(capsys, "other settings (seed is 0 there and 4 here)")
    assert launch(config, "--resume", "never") == 2
    assert_one_line(capsys, "holds a run already")

    shutil.rmtree(mine)
    tiny_checkpoint(mine, tiny_backbone(seed=6))
    assert launch(config) == 2
    assert_one_line(capsys, "checkpoints/step_00000001", "made for another backbone")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files


def assert_one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    for part in parts:
        assert part in lines[0], lines[0]
