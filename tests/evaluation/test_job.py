"""The evaluation job on folders of real files, run as its users run it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from lisa_video.cli import run_job
from lisa_video.clip_files import probe_clip, read_clip
from lisa_video.errors import UserError
from lisa_video.evaluation import clips as clip_measures
from lisa_video.evaluation.job import check_evaluation, evaluate
from lisa_video.evaluation_config import EvaluateConfig, SamplingConfig
from lisa_video.metrics.extractors import build_extractor
from lisa_video.metrics.frechet import sample_distance
from lisa_video.metrics.fvd import fvd_of_clips
from lisa_video.metrics.presets import fvd_preset
from lisa_video.video import write_video
from tests.evaluation.dots import DotDetector, dot_frames, dot_poses
from tests.metrics.networks import colour_network
from tests.metrics.test_fidelity import PixelDistance
from tests.metrics.test_frames import picture_network

ROOT = Path(__file__).parents[2]
JOB = ROOT / "pipelines" / "evaluate.py"


@pytest.fixture(autouse=True)
def _dots_stand_in_for_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_measures, "build_detector", lambda name, weights: DotDetector())


def noise_clip(seed: int, frames: int = 18, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """uint8 (F, H, W, 3): a colour of its own under noise that is more or less strong."""
    random = np.random.RandomState(seed)
    base = random.randint(60, 190, (1, 1, 1, 3))
    strength = random.randint(5, 50)
    return (base + random.randint(-strength, strength, (frames, *size, 3))).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> EvaluateConfig:
    """Eight real and seven generated arrays, and a small network."""
    for folder, count, first in (("real", 8, 0), ("fake", 7, 100)):
        (tmp_path / folder).mkdir()
        for index in range(count):
            np.save(tmp_path / folder / f"clip{index}.npy", noise_clip(first + index))
    return EvaluateConfig(
        real=tmp_path / "real",
        fake=tmp_path / "fake",
        metrics="fvd",
        preset="original",
        network=str(colour_network(tmp_path)),
        json=tmp_path / "out.json",
        cache=tmp_path / "cache",
        device="cpu",
        draws=10,
    )


@pytest.fixture
def posed(tmp_path: Path) -> EvaluateConfig:
    """Two clips: "exact" follows its poses, in "moved" the first dot is 9 pixels off (0.15)."""
    for name, moved in {"exact": 0.0, "moved": 9.0}.items():
        for folder, clip in {"videos": dot_poses(moved), "truth": dot_poses()}.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            write_video(tmp_path / folder / f"{name}.mp4", dot_frames(clip), fps=8.0)
        (tmp_path / "poses").mkdir(exist_ok=True)
        dot_poses().save(tmp_path / "poses" / f"{name}.npz")
    return EvaluateConfig(
        fake=tmp_path / "videos",
        poses=tmp_path / "poses",
        ground_truth=tmp_path / "truth",
        json=tmp_path / "scores.json",
    )


def result_of(config: EvaluateConfig) -> dict[str, object]:
    check_evaluation(config)
    evaluate(config)
    assert config.json is not None
    result: dict[str, object] = json.loads(config.json.read_text())
    config.json.unlink()
    return result


# Distances of distributions.


def test_the_distance_of_two_folders_is_that_of_their_clips(folders: EvaluateConfig) -> None:
    result = result_of(folders)
    real, fake = (
        np.stack([noise_clip(first + index)[:16] for index in range(count)])
        for first, count in ((0, 8), (100, 7))
    )
    network = build_extractor(folders.network, fvd_preset("original"))
    expected = fvd_of_clips(real, fake, preset="original", extractor=network)
    found = result["metrics"]["FD-colours"]
    assert found["value"] == pytest.approx(expected.value, rel=1e-9)
    assert found["interval"]["low"] < found["value"] < found["interval"]["high"]
    stated = {
        "n_real": 8,
        "n_fake": 7,
        "dimension": 6,
        "ddof": 1,
        "preset": "original",
        "frames": 16,
        "stride": 1,
        "resize": "bilinear_tf1",
        "extractor": "colours",
        "extractor_sha256": network.sha256,
        "precision": "float32",
        "fps": {"real": [], "fake": []},
    }
    assert {key: found[key] for key in stated} == stated
    assert result["skipped"] == []
    assert any("only 7 clips on one side" in line for line in result["warnings"])
    assert result["real"]["sizes"] == {"32x24": 8}
    assert {"python", "lisa_video", "torch", "numpy"} <= result["versions"].keys()
    assert result["config"]["seed"] == 0


def test_all_distances_at_once(folders: EvaluateConfig) -> None:
    for index in range(8, 40):
        np.save(folders.real / f"clip{index}.npy", noise_clip(index))
        np.save(folders.fake / f"clip{index}.npy", noise_clip(100 + index))
    np.save(folders.fake / "clip7.npy", noise_clip(107))
    metrics = result_of(replace(folders, metrics="fvd, kvd,fvd_infinity"))["metrics"]
    assert list(metrics) == ["FD-colours", "KD-colours", "FD-infinity-colours"]
    limit = metrics["FD-infinity-colours"]["extrapolation"]
    assert limit["sizes"][0] == 20 and limit["sizes"][-1] == 40
    assert metrics["KD-colours"]["ddof"] is None


def test_the_published_network_gives_an_fvd(folders: EvaluateConfig) -> None:
    """Its shortest clips, and no more than needed, because it takes its time."""
    for folder in (folders.real, folders.fake):
        for index in range(2, 8):
            (folder / f"clip{index}.npy").unlink(missing_ok=True)
    config = replace(folders, network="i3d", sampling=SamplingConfig(frames=9))
    found = result_of(config)["metrics"]["FVD"]
    assert (found["n_real"], found["n_fake"], found["dimension"]) == (2, 2, 400)
    assert found["extractor_sha256"].startswith("af5c50f0")
    assert found["frames"] == 9


def test_a_second_run_takes_kept_features(
    folders: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = result_of(folders)
    kept = sorted(folders.cache.rglob("*.npy"))
    assert len(kept) == 15
    times = {path: path.stat().st_mtime_ns for path in kept}
    second = result_of(folders)
    assert second["metrics"] == first["metrics"]
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    # Another content under the same name, and another sampling, are computed.
    np.save(folders.fake / "clip0.npy", noise_clip(500))
    assert result_of(folders)["metrics"] != first["metrics"]
    assert len(list(folders.cache.rglob("*.npy"))) == 16
    result_of(replace(folders, sampling=SamplingConfig(stride=1, frames=12)))
    assert len(list(folders.cache.rglob("*.npy"))) == 31
    # A damaged one is computed again.
    kept[0].write_bytes(b"")
    np.save(folders.fake / "clip0.npy", noise_clip(100))
    assert result_of(folders)["metrics"] == first["metrics"]
    assert kept[0].stat().st_size > 0


def test_nothing_is_kept_unless_wanted(folders: EvaluateConfig) -> None:
    result_of(replace(folders, use_cache=False))
    assert not folders.cache.exists()


def test_statistics_stand_for_the_real_clips(folders: EvaluateConfig, tmp_path: Path) -> None:
    kept = tmp_path / "real.npz"
    first = result_of(replace(folders, statistics=kept))["metrics"]["FD-colours"]
    result = result_of(replace(folders, real=kept))
    second = result["metrics"]["FD-colours"]
    assert second["value"] == pytest.approx(first["value"], rel=1e-6)
    assert (second["n_real"], second["interval"]) == (8, None)
    for change, message in (
        ({"preset": "junyaohu"}, "have preset 'original', this run has 'junyaohu'"),
        ({"sampling": SamplingConfig(stride=2, frames=9)}, "have preprocessing"),
        ({"metrics": "kvd"}, "'kvd' needs the real clips, not only their statistics"),
        ({"statistics": tmp_path / "again.npz"}, "these are statistics already"),
    ):
        with pytest.raises(UserError, match=message):
            result_of(replace(folders, real=kept, **change))


def test_windows_of_longer_videos(folders: EvaluateConfig) -> None:
    found = result_of(replace(folders, preset="disco"))
    assert found["metrics"]["FD-colours"]["n_real"] == 8 * 3  # 18 frames hold 3 windows of 16
    assert found["real"]["videos"] == 8
    spread = replace(folders, sampling=SamplingConfig(frames=9, clips=2))
    assert result_of(spread)["metrics"]["FD-colours"]["n_fake"] == 14


def write_gif(path: Path, frames: np.ndarray, delays: list[int]) -> None:
    """Frames shown for unequal times, in milliseconds."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=delays, loop=0)


def write_uneven_mp4(path: Path, frames: np.ndarray, times: list[int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p")
            picture.pts, picture.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_frames_are_true_ones_whatever_the_time_stamps_say(
    folders: EvaluateConfig, tmp_path: Path
) -> None:
    """Grey levels tell which frame is which. A reader that re-times would repeat and drop some."""
    frames = np.zeros((18, 32, 48, 3), np.uint8)
    frames[:] = (np.arange(18) * 12 + 20)[:, None, None, None]
    uneven = [100 + 400 * (index % 3 == 1) for index in range(18)]
    write_gif(tmp_path / "uneven.gif", frames, uneven)
    write_uneven_mp4(tmp_path / "uneven.mp4", frames, list(np.cumsum(uneven) // 100))
    for name in ("uneven.gif", "uneven.mp4"):
        assert probe_clip(tmp_path / name).frames == 18
        found = read_clip(tmp_path / name).mean((1, 2, 3))
        np.testing.assert_allclose(found, frames[:, 0, 0, 0], atol=3)
        picked = read_clip(tmp_path / name, [0, 7, 17]).mean((1, 2, 3))
        np.testing.assert_allclose(picked, frames[[0, 7, 17], 0, 0, 0], atol=3)

    # A GIF and an array of the same frames are the same to a network.
    shutil.rmtree(folders.real)
    shutil.rmtree(folders.fake)
    for folder in (folders.real, folders.fake):
        folder.mkdir()
    for index in range(3):
        shade = (frames // 2 + 20 * index).astype(np.uint8)
        np.save(folders.real / f"clip{index}.npy", shade)
        write_gif(folders.fake / f"clip{index}.gif", shade, uneven)
    assert result_of(folders)["metrics"]["FD-colours"]["value"] < 1e-4


def test_rates_that_differ_are_warned_of(folders: EvaluateConfig) -> None:
    for folder, fps in ((folders.real, 25), (folders.fake, 8)):
        shutil.rmtree(folder)
        folder.mkdir()
        for index in range(2):
            write_video(folder / f"{index}.mp4", noise_clip(index), fps=fps)
    result = result_of(folders)
    assert any("real clips have 25 fps, generated 8" in line for line in result["warnings"])
    assert result["metrics"]["FD-colours"]["fps"] == {"real": [25], "fake": [8]}


# Poses.


def test_poses_are_scored_with_the_ceiling_beside(
    posed: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    result = result_of(posed)
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["value", "real"]
    assert table.splitlines()[1].split() == ["pck@0.1", "0.9167", "1.0000"]
    assert "detector dots, preset strict, 2 clips, 10 frames" in table
    assert result["metrics"]["pck@0.1"] == pytest.approx({"value": 11 / 12, "reference": 1})
    assert result["per_clip"]["exact"]["pck@0.1"] == 1
    assert result["per_clip"]["moved"]["pck@0.1"] == pytest.approx(5 / 6)
    pose = result["pose"]
    assert (pose["detector"], pose["preset"], pose["clips"], pose["frames"]) == (
        "dots",
        "strict",
        2,
        10,
    )
    assert pose["rules"]["reference"] == "max_side"
    assert pose["ceiling"]["keypoint_distance_px"] < 1
    assert set(result["metrics"]) == {
        "pck@0.1",
        "pck@0.2",
        "keypoint_distance",
        "keypoint_distance_px",
        "keypoint_distance_l1_px",
        "missing_rate",
    }


def test_without_ground_truth_the_ceiling_is_said_to_be_unmeasured(
    posed: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    result = result_of(replace(posed, ground_truth=None))
    assert "ceiling not measured" in capsys.readouterr().out
    assert result["pose"]["ceiling"] is None


@pytest.mark.parametrize("preset", ["strict", "lisa", "mmpose"])
def test_poses_that_are_given_need_no_clips(posed: EvaluateConfig, preset: str) -> None:
    given = posed.poses.with_name("given")
    given.mkdir()
    dot_poses().save(given / "exact.npz")
    dot_poses(moved=9).resized(192, 128).save(given / "moved.npz")  # found at another size
    result = result_of(
        replace(
            posed,
            fake=None,
            ground_truth=None,
            fake_poses=given,
            pose_preset=preset,
            metrics="pck,oks,extra_people,acceleration,jitter",
        )
    )
    assert result["pose"]["preset"] == preset
    assert result["pose"]["detector"].startswith("given in ")
    assert result["metrics"]["pck@0.2"]["value"] == 1
    assert result["metrics"]["acceleration_px"]["value"] == pytest.approx(0, abs=1e-4)
    assert result["per_clip"]["moved"]["oks"] < result["per_clip"]["exact"]["oks"] == 1


def test_the_same_clip_in_other_containers(posed: EvaluateConfig, tmp_path: Path) -> None:
    frames = dot_frames(dot_poses())
    shutil.rmtree(posed.fake)
    shutil.rmtree(posed.poses)
    (posed.fake / "images").mkdir(parents=True)
    posed.poses.mkdir()
    np.save(posed.fake / "array.npy", frames)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(posed.fake / "images" / f"{index}.png"), frame[..., ::-1])
    for name in ("array", "images"):
        dot_poses().save(posed.poses / f"{name}.npz")
    per_clip = result_of(replace(posed, ground_truth=None))["per_clip"]
    assert per_clip["array"] == per_clip["images"]
    assert per_clip["array"]["pck@0.1"] == 1


# Pictures and pairs.


def test_pictures_and_pairs(folders: EvaluateConfig) -> None:
    (folders.real / "clip7.npy").unlink()
    np.save(folders.fake / "clip0.npy", noise_clip(0))
    result = result_of(replace(folders, metrics="psnr,ssim,flicker,warp_error"))
    assert set(result["metrics"]) == {"psnr", "ssim", "flicker", "warp_error"}
    assert result["metrics"]["psnr"]["value"] is None  # one pair is equal: infinite
    assert result["per_clip"]["clip0"]["ssim"] == pytest.approx(1)
    assert 5 < result["per_clip"]["clip1"]["psnr"] < 30
    real = noise_clip(1).astype(int)
    change = np.abs(np.diff(real, axis=0)).mean() / 255
    assert 0.2 * change < result["metrics"]["flicker"]["reference"] < 5 * change


def test_networks_of_the_user_for_frames_and_pairs(folders: EvaluateConfig, tmp_path: Path) -> None:
    """FID beside FVD from the same clips; LPIPS clip by clip."""
    (folders.real / "clip7.npy").unlink()
    torch.jit.script(PixelDistance()).save(str(tmp_path / "lpips.pt"))
    result = result_of(
        replace(
            folders,
            metrics="fvd,fid,lpips",
            fid_network=picture_network(tmp_path),
            lpips_network=tmp_path / "lpips.pt",
        )
    )
    frames = [
        np.concatenate([noise_clip(first + index)[:16] for index in range(7)]).mean((1, 2))
        for first in (0, 100)
    ]
    fid = result["metrics"]["FID-inception-2015"]
    assert fid["value"] == pytest.approx(sample_distance(*frames, ddof=1), rel=1e-4)
    assert (fid["n_real"], fid["dimension"], fid["resize"]) == (7 * 16, 3, None)
    assert result["metrics"]["FD-colours"]["n_real"] == 7
    apart = np.abs(noise_clip(3).astype(float) - noise_clip(103)).mean() / 127.5
    assert result["per_clip"]["clip3"]["lpips"] == pytest.approx(apart, rel=1e-4)


# What cannot be used.


def run(config: EvaluateConfig) -> int | str | None:
    """Exit code of the job with this config, as flags."""
    skip = {"sampling"}
    arguments = [
        f"--{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in vars(config).items()
        if value is not None and key not in skip
    ]
    arguments += [
        f"--sampling.{key}={value}"
        for key, value in vars(config.sampling).items()
        if value is not None
    ]
    try:
        run_job(EvaluateConfig, evaluate, check=check_evaluation, description="", argv=arguments)
    except SystemExit as end:
        return end.code
    return 0


def truncated_mp4(folder: Path) -> Path:
    path = folder / "broken.mp4"
    write_video(path, noise_clip(0), fps=8)
    path.write_bytes(path.read_bytes()[:-400])
    return path


def zero_bytes(folder: Path) -> Path:
    path = folder / "broken.mp4"
    path.write_bytes(b"")
    return path


def text_as_mp4(folder: Path) -> Path:
    path = folder / "broken.mp4"
    path.write_text("this is no video\n" * 50)
    return path


def sound_only(folder: Path) -> Path:
    path = folder / "broken.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_array(folder: Path) -> Path:
    path = folder / "broken.npy"
    np.save(path, noise_clip(0))
    path.write_bytes(path.read_bytes()[:500])
    return path


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (truncated_mp4, "truncated"),
        (zero_bytes, "the file is empty"),
        (text_as_mp4, "not a video"),
        (sound_only, "no video stream"),
        (cut_array, "cannot be read as a NumPy array"),
    ],
)
def test_broken_files_are_left_out_by_name_and_never_silently(
    folders: EvaluateConfig,
    spoil: Callable[[Path], Path],
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = result_of(folders)["metrics"]
    capsys.readouterr()
    broken = spoil(folders.fake)
    assert run(folders) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning:" not in line]
    assert len(lines) == 2, lines
    assert lines[0].startswith(f"left out: {broken}") and part in lines[0]
    assert lines[1].startswith("error: 1 clips were left out")
    result = json.loads(folders.json.read_text())
    assert result["metrics"] == expected
    assert len(result["skipped"]) == 1 and part in result["skipped"][0]
    folders.json.unlink()
    assert run(replace(folders, allow_skips=True)) == 0


@pytest.mark.parametrize(
    ("sampling", "code", "count"),
    [("error", 2, None), ("skip", 2, 7), ("pad", 0, 8)],
)
def test_a_short_video_is_an_error_unless_told_otherwise(
    folders: EvaluateConfig,
    sampling: str,
    code: int,
    count: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(folders.fake / "short.npy", noise_clip(0, frames=12))
    config = replace(folders, sampling=SamplingConfig(short_videos=sampling))
    assert run(config) == code
    errors = capsys.readouterr().err
    assert ("short.npy: 12 frames are too few for 1 clip(s) of 16 frames" in errors) == (code == 2)
    assert folders.json.exists() == (count is not None)
    if count is not None:
        result = json.loads(folders.json.read_text())
        assert result["metrics"]["FD-colours"]["n_fake"] == count
        assert ("1 generated clips were padded, as short was" in str(result["warnings"])) == (
            sampling == "pad"
        )


def test_sizes_that_differ_are_warned_of(folders: EvaluateConfig) -> None:
    np.save(folders.fake / "large.npy", noise_clip(0, size=(48, 64)))
    result = result_of(folders)
    assert any(
        "generated clips have 2 sizes: 32x24 (7), 64x48 (1)" in w for w in result["warnings"]
    )
    pairs = replace(folders, metrics="psnr", allow_skips=True)
    np.save(folders.real / "large.npy", noise_clip(0))
    (folders.real / "clip7.npy").unlink()
    (skipped,) = result_of(pairs)["skipped"]
    assert "large.npy: the real clip has 18 frames of 32x24, the generated one 18" in skipped


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _without(name: str, *kept: str) -> Callable[[EvaluateConfig], None]:
    def spoil(config: EvaluateConfig) -> None:
        for path in getattr(config, name).iterdir():
            if path.name not in kept:
                path.unlink()

    return spoil


def _result_exists(config: EvaluateConfig) -> None:
    assert config.json is not None
    config.json.write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "change", "parts"),
    [
        (_without("fake"), {}, ["fake: no clip here"]),
        (_without("real"), {}, ["real: no clip here"]),
        (_without("fake", "clip0.npy"), {}, ["1 generated clip: a distance", "at least 2"]),
        (None, {"metrics": "psnr"}, ["clip7.npy", "no clip of that name"]),
        (None, {"metrics": "fvd_infinity"}, ["needs 24 clips on each side, there are 7"]),
        (None, {"preset": "best"}, ["unknown FVD preset 'best'"]),
        (None, {"network": "absent.pt"}, ["absent.pt: no such network"]),
        (None, {"sampling": SamplingConfig(frames=8)}, ["needs clips of 9 frames, they have 8"]),
        (_result_exists, {}, ["out.json: exists already"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refusals_of_distances(
    folders: EvaluateConfig,
    spoil: Callable[[EvaluateConfig], None] | None,
    change: dict[str, object],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if change.get("metrics") == "psnr":
        np.save(folders.fake / "clip7.npy", noise_clip(0))
        (folders.real / "clip7.npy").unlink()
    if spoil:
        spoil(folders)
    refuses(replace(folders, **change), parts, capsys)


def poses_with(**change: object) -> Callable[[EvaluateConfig], None]:
    """Write "moved.npz" again, as NumPy arrays, with some of them changed."""

    def spoil(config: EvaluateConfig) -> None:
        path = config.poses / "moved.npz"
        with np.load(path, allow_pickle=False) as stored:
            np.savez(path, **{**stored, **change})

    return spoil


def _truncated_poses(config: EvaluateConfig) -> None:
    path = config.poses / "moved.npz"
    path.write_bytes(path.read_bytes()[:100])


NAN = dot_poses().keypoints.copy()
NAN[3, 0, 2] = np.nan


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_without("poses", "exact.npz"), ["moved.mp4", "no pose file of that name"]),
        (_without("fake", "moved.mp4"), ["exact.npz", "no clip of that name"]),
        (_without("ground_truth", "moved.mp4"), ["exact.npz", "no clip of that name", "truth"]),
        (_without("fake"), ["videos: no clip here"]),
        (_without("poses"), ["poses: no pose file"]),
        (_truncated_poses, ["moved.npz"]),
        (_result_exists, ["scores.json: exists already"]),
        (poses_with(keypoints=NAN), ["moved.npz", "frame 3"]),
        (poses_with(keypoints=np.zeros_like(NAN)), ["moved.npz"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refusals_of_poses(
    posed: EvaluateConfig,
    spoil: Callable[[EvaluateConfig], None],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(posed)
    refuses(posed, parts, capsys)


def refuses(config: EvaluateConfig, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, no file."""
    assert config.json is not None
    before = config.json.read_text() if config.json.exists() else None
    assert run(config) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line, line
    after = config.json.read_text() if config.json.exists() else None
    assert after == before


def test_a_clip_of_another_length_than_its_poses_is_left_out(
    posed: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (posed.fake / "moved.mp4").unlink()
    write_video(posed.fake / "moved.mp4", dot_frames(dot_poses())[:3], fps=8.0)
    assert run(posed) == 2
    errors = capsys.readouterr().err
    assert "moved.mp4: the clip has 3 frames, its poses have 5" in errors
    result = json.loads(posed.json.read_text())
    assert result["pose"]["clips"] == 1 and len(result["skipped"]) == 1


def launch(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(JOB), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_two_processes_give_the_figures_of_one(folders: EvaluateConfig) -> None:
    """Under `accelerate launch`, with a broken clip that one of them meets."""
    zero_bytes(folders.fake)
    (folders.real / "clip7.npy").unlink()
    arguments = [
        f"--real={folders.real}",
        f"--fake={folders.fake}",
        f"--network={folders.network}",
        "--metrics=fvd,flicker",
        "--use_cache=false",
        f"--json={folders.json}",
    ]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    accelerate += ["--num_processes=2", "--num_cpu_threads_per_process=1"]
    done = launch(accelerate, *arguments, "--allow-skips")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("left out: ") == 1
    together = json.loads(folders.json.read_text())
    folders.json.unlink()

    alone = launch([sys.executable], *arguments)
    assert alone.returncode == 2, alone.stderr
    single = json.loads(folders.json.read_text())
    assert len(single["per_clip"]) == 7
    for key in ("metrics", "per_clip", "skipped"):
        assert together[key] == single[key]


def test_an_unknown_metric_or_detector_is_refused_by_the_script(posed: EvaluateConfig) -> None:
    for flag, part in (
        ("--detector=eyes", "eyes"),
        ("--metrics=pck,fidelity", "unknown 'fidelity', known: fvd, kvd"),
        ("--metrics=fvd", "metric 'fvd' needs real"),
    ):
        done = launch([sys.executable], f"--fake={posed.fake}", f"--poses={posed.poses}", flag)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert part in done.stderr
