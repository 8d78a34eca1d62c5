"""The README's commands run as they are written, only smaller and into a temporary folder."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lisa_video.assets import fetch_asset
from lisa_video.manifest import load_manifest
from lisa_video.poses import PoseSequence
from lisa_video.video import read_video

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("animatediff", "wan")


def readme_lines() -> list[list[str]]:
    """The words of each of its python commands."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("python ")]


def readme_commands(kind: str = "animatediff") -> dict[str, list[str]]:
    """Job, a benchmark with its name -> words of its first command in the README: that with a config
    of this backbone, or of none."""
    return {
        " ".join([Path(words[1]).stem, *(w for w in words[2:3] if not w.startswith("-"))]): words
        for words in reversed(readme_lines())
        if all(f"configs/{other}/" not in " ".join(words) for other in KINDS if other != kind)
    }


def readme_line(part: str) -> list[str]:
    """The one command with this flag."""
    (words,) = [words for words in readme_lines() if part in words]
    return words


def run(words: list[str], extra: dict[str, object]) -> None:
    flags = [part for key, value in extra.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, *words[1:], *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the chain works; the rendered set that several jobs read is made here."""
    folder = tmp_path_factory.mktemp("readme")
    run(
        readme_commands()["render_figures"],
        {
            "output": folder / "figures",
            "figures.clips": 4,
            "figures.size": 64,
            "figures.workers": 1,
            "validation_clips": 3,
        },
    )
    return folder


def test_every_job_is_in_the_readme() -> None:
    jobs = {path.stem for name in ("pipelines", "demo") for path in (ROOT / name).glob("*.py")}
    jobs.remove("run_demo")  # which `make demo` runs
    named = set().union(*(readme_commands(kind) for kind in KINDS))
    assert {name.partition(" ")[0] for name in named} == jobs


def test_train_generate_evaluate(folder: Path) -> None:
    commands = readme_commands()
    small_run = {
        "data.root": folder / "figures",
        "data.batch_size": 2,
        "steps": 2,
        "probe.clips": 2,
        "probe.draws": 1,
        "validation.clips": 2,
        "validation.inference_steps": 1,
        "output": folder / "train",
    }
    run(commands["train"], small_run)
    videos = folder / "videos"
    (videos / "poses").mkdir(parents=True)
    run(
        commands["generate"],
        {
            "side_network": folder / "train" / "side_network",
            "sampling.steps": 2,
            "output": videos / "clip.mp4",
            "poses_output": videos / "poses" / "clip.npz",
        },
    )
    run(
        readme_line("configs/evaluate.yaml"),
        {"fake": videos, "poses": videos / "poses", "json": folder / "scores.json"},
    )
    assert (folder / "scores.json").is_file()


def test_what_a_training_needs_is_told_without_weights() -> None:
    words = readme_line("--estimate")
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "of 24.00 GiB" in done.stdout


def test_report_and_share(folder: Path) -> None:
    """Of the run that was trained above."""
    commands, trained = readme_commands(), str(folder / "train")
    for job, extra in (
        ("report outputs/train_lisa", {"html": folder / "run.html"}),
        ("share outputs/train_lisa", {"out": folder / "shared"}),
    ):
        run([trained if w == "outputs/train_lisa" else w for w in commands[job]], extra)
    assert "data:image" in (folder / "run.html").read_text()
    assert (folder / "shared" / "README.md").is_file()


def test_long_video_and_another_build(folder: Path) -> None:
    small = {"sampling.steps": 2, "window.frames": 8, "window.overlap": 4}
    run(readme_line("--window.frames"), small | {"output": folder / "long.mp4"})
    assert (folder / "long.mp4").is_file()
    built = {"sampling.steps": 2, "output": folder / "built.mp4"}
    run(readme_line("--driving.retarget.build.height"), built)
    assert (folder / "built.driver.json").is_file()


def test_combined_controls(folder: Path) -> None:
    words = readme_line("configs/animatediff/generate_combined.yaml")
    run(words, {"sampling.steps": 2, "output": folder / "combined.mp4"})
    assert len(read_video(folder / "combined.mp4").frames) == 16


def test_demos(folder: Path) -> None:
    commands = readme_commands()
    run(
        commands["render"],
        {"sampling.steps": 2, "output": folder / "grid.mp4", "sheet": folder / "grid.png"},
    )
    assert (folder / "grid.mp4").is_file()
    run([*commands["app"], "--dry-run"], {})


def test_compose(folder: Path) -> None:
    run(
        readme_commands()["compose"],
        {
            "training.data.root": folder / "figures",
            "training.data.batch_size": 2,
            "training.steps": 1,
            "training.probe.every": 0,
            "training.output": folder / "compose",
            "objectives": "[plain]",
            "score.clips": 1,
            "score.inference_steps": 1,
        },
    )
    assert (folder / "compose" / "sheet.png").is_file()


def test_evaluate_against_real_clips(folder: Path) -> None:
    """The line with --real, with I3D, on the shortest clips that it takes."""
    (line,) = re.findall(r"^python .* --real .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    sample = PoseSequence.load(next((ROOT / "data" / "sample" / "poses").glob("*.npz")))
    clips = np.random.default_rng(0).integers(0, 256, (4, 9, 64, 64, 3), dtype=np.uint8)
    for name in ("real", "generated", "asked"):
        (folder / name).mkdir()
    for index in range(2):
        np.save(folder / "real" / f"{index}.npy", clips[index])
        np.save(folder / "generated" / f"{index}.npy", clips[2 + index])
        sample.frames(range(9)).save(folder / "asked" / f"{index}.npz")
    run(
        shlex.split(line),
        {
            "real": folder / "real",
            "fake": folder / "generated",
            "poses": folder / "asked",
            "sampling.frames": 9,
            "json": folder / "out.json",
            "html": folder / "report.html",
        },
    )
    metrics = json.loads((folder / "out.json").read_text())["metrics"]
    assert set(metrics) == {"FVD", "pck@0.1", "pck@0.2", "warp_error"}
    assert (folder / "report.html").is_file()


def test_train_and_generate_with_wan(folder: Path) -> None:
    commands = readme_commands("wan")
    run(
        commands["train"],
        {
            "data.root": folder / "figures",
            "data.batch_size": 2,
            "steps": 2,
            "probe.clips": 2,
            "probe.draws": 1,
            "validation.clips": 2,
            "validation.inference_steps": 1,
            "output": folder / "train_wan",
        },
    )
    run(
        commands["generate"],
        {
            "side_network": folder / "train_wan" / "side_network",
            "sampling.steps": 2,
            "output": folder / "wan.mp4",
        },
    )
    assert read_video(folder / "wan.mp4").frames.shape == (13, 64, 64, 3)
    small = {"batch_size": 1, "frames": 5, "repeats": 1, "json": folder / "step_wan.json"}
    run(commands["benchmark step"], small)
    assert (folder / "step_wan.json").is_file()


def test_python_example() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = example.replace(", poses\n", ", poses, num_inference_steps=2\n")
    assert script != example
    script += "\nassert video.shape == (1, 16, 64, 64, 3), video.shape"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_extract_poses(folder: Path) -> None:
    commands, clips = readme_commands(), fetch_asset("clips")
    words = [
        str(clips / "bikes.mp4") if w == "clip.mp4" else w
        for w in commands["extract_poses clip.mp4"]
    ]
    found = folder / "bikes.npz"
    run(words, {"out": found, "preview": folder / "bikes_poses.mp4"})
    assert np.load(found)["keypoints"].shape == (250, 1, 18, 3)
    words = [str(clips) if w == "videos" else w for w in commands["extract_poses videos"]]
    run(words, {"out": folder / "clips"})
    assert load_manifest(folder / "clips")


def test_import_and_validate(folder: Path) -> None:
    commands, frames = readme_commands(), folder / "TikTok_dataset" / "00001" / "images"
    frames.mkdir(parents=True)
    video = fetch_asset("clips") / "carphone_pristine.mp4"
    for index, frame in enumerate(read_video(video, range(20)).frames):
        Image.fromarray(frame).save(frames / f"{index:04}.png")
    words = [
        str(folder / w) if w == "TikTok_dataset" else w
        for w in commands["import_data TikTok_dataset"]
    ]
    run(words, {"out": folder / "tiktok"})
    assert load_manifest(folder / "tiktok")[0].frames == 20

    words = [
        str(folder / "figures") if w == "my_set" else w for w in commands["validate_data my_set"]
    ]
    run(words, {"html": folder / "set.html"})
    assert "<img" in (folder / "set.html").read_text()


def test_cache_and_pack(folder: Path) -> None:
    commands = readme_commands()
    training = {
        "data.root": folder / "figures",
        "data.cache": folder / "cache",
        "data.views": 1,
        "probe.clips": 2,
        "output": folder / "cached",
    }
    run(commands["cache"], training)
    run(commands["pack_shards"], training | {"pack_to": folder / "shards"})
    assert list((folder / "shards").glob("*.tar"))


def small_comparison(folder: Path, output: str) -> dict[str, object]:
    """One seed of two steps, for a job that compares trainings."""
    return {
        "training.data.root": folder / "figures",
        "training.data.batch_size": 2,
        "training.steps": 2,
        "training.probe.every": 1,
        "training.probe.clips": 2,
        "training.probe.draws": 1,
        "training.output": folder / output,
        "seeds": "[0]",
        "score.at": "[2]",
        "score.clips": 2,
        "score.inference_steps": 2,
    }


def test_compare_and_benchmark(folder: Path) -> None:
    commands = readme_commands()
    run(
        commands["compare"],
        small_comparison(folder, "compare")
        | {
            "grid.lr": "[1e-4]",
            "grid.pose_init": "[zero]",
            "grid.alignment_weight": "[0.2]",
            "grid.tap": "[down_3]",
        },
    )
    assert (folder / "compare" / "curves.png").is_file()
    run(
        commands["benchmark step"],
        {"batch_size": 1, "frames": 2, "repeats": 1, "json": folder / "step.json"},
    )
    assert (folder / "step.json").is_file()


def test_ablate_and_economy(folder: Path) -> None:
    commands = readme_commands()
    run(
        commands["ablate"],
        small_comparison(folder, "ablate")
        | {"arms": "{plain: {objective: plain}, every_2: {alignment.every: 2}}"},
    )
    assert (folder / "ablate" / "curves.png").is_file()
    small = {"step.batch_size": 1, "step.frames": 2, "step.repeats": 1}
    run(commands["benchmark economy"], small | {"json": folder / "economy.json"})
    assert (folder / "economy.json").is_file()


def test_pretrain_and_train_detector(folder: Path) -> None:
    commands = readme_commands()
    figures = {"figures.clips": 4, "figures.workers": 1}
    run(
        commands["pretrain"],
        {
            **figures,
            "output": folder / "pretrain",
            "vae.steps": 2,
            "unet.image_steps": 1,
            "unet.video_steps": 1,
        },
    )
    assert (folder / "pretrain" / "backbone" / "README.md").is_file()
    run(
        commands["train_detector"],
        {
            **figures,
            "rendered": folder / "pretrain",
            "vae": folder / "pretrain" / "backbone",
            "output": folder / "keypoints",
            "steps": 2,
        },
    )
    assert (folder / "keypoints" / "scores.json").is_file()
    run(
        readme_commands("wan")["pretrain_wan"],
        {
            **figures,
            "output": folder / "pretrain_wan",
            "vae.image_steps": 1,
            "vae.video_steps": 1,
            "transformer.image_steps": 1,
            "transformer.video_steps": 1,
        },
    )
    assert (folder / "pretrain_wan" / "backbone" / "README.md").is_file()
