"""The shipped trainings of released checkpoints, end to end by shapes alone."""

import functools
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks.config import REAL_TRAININGS, ParametersBenchmarkConfig
from lisa_video.benchmarks.parameters import (
    check,
    published_settings,
    read_training,
    training_size,
    weightless_networks,
)
from lisa_video.errors import UserError
from lisa_video.injection import SideResiduals, chosen_points
from lisa_video.side_networks.transformer import TransformerSideNetwork
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import BackboneConfig, TrainConfig
from lisa_video.training.losses import (
    Conditions,
    LisaObjective,
    NoisedLatents,
    noise_latents,
    training_losses,
)

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "configs" / "published"
GOAL_PCT = 0.2


@dataclass(frozen=True)
class Expected:
    """What is known of a checkpoint, and follows from its training config."""

    parameters: int
    latents: tuple[int, ...]
    text: tuple[int, int]
    points: list[str]
    feature: tuple[int, ...]
    """Shape of the tapped feature."""


EXPECTED = {
    # Stable Diffusion's UNet and the motion modules of the adapter, which has none in the middle.
    "animatediff/sd15_lisa": Expected(
        859_520_964 + 417_137_600,
        (1, 4, 16, 64, 64),
        (77, 768),
        [*(f"down_{index}" for index in range(12)), "mid"],
        (16, 640, 32, 32),
    ),
    "wan/wan21_1_3b_lisa": Expected(
        1_418_996_800,
        (1, 16, 21, 60, 104),
        (512, 4096),
        [f"block_{index}" for index in range(2, 30, 3)],
        (1, 21 * 30 * 52, 1536),
    ),
    "wan/wan22_ti2v_5b_lisa": Expected(
        4_999_787_712,
        (1, 48, 31, 44, 80),
        (512, 4096),
        [f"block_{index}" for index in range(4, 30, 5)],
        (1, 31 * 22 * 40, 3072),
    ),
    "cogvideox/cogvideox_2b_lisa": Expected(
        1_693_783_872,
        (1, 16, 13, 60, 90),
        (226, 4096),
        [f"block_{index}" for index in range(2, 30, 3)],
        (1, 13 * 30 * 45, 1920),
    ),
    "cogvideox/cogvideox_5b_lisa": Expected(
        5_570_283_072,
        (1, 16, 13, 60, 90),
        (226, 4096),
        [f"block_{index}" for index in range(5, 42, 6)],
        (1, 13 * 30 * 45, 3072),
    ),
}


def config_path(name: str) -> Path:
    return ROOT / "configs" / f"{name}.yaml"


@functools.cache
def built(name: str) -> tuple[VideoBackbone, Networks]:
    return weightless_networks(read_training(config_path(name)), PUBLISHED)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


@pytest.mark.parametrize("name", REAL_TRAININGS)
def test_a_training_pass_has_the_shapes_of_the_published_checkpoint(name: str) -> None:
    config, expected = read_training(config_path(name)), EXPECTED[name]
    backbone, networks = built(name)
    side, decoder = networks.side_network, networks.decoder
    assert count(backbone.main_network) == expected.parameters
    assert list(side.projections) == expected.points
    assert decoder is not None

    frames, (width, height) = config.data.frames, config.data.size
    backbone.check_frames(frames)
    backbone.check_size(config.data.size)
    with torch.device("meta"):
        latents = backbone.encode_video(torch.zeros(1, frames, 3, height, width))
        assert latents.shape == expected.latents
        timesteps = backbone.sample_timesteps(1, shift=config.timesteps.shift)
        noised = noise_latents(backbone, latents, torch.zeros(latents.shape), timesteps)
        conditions = Conditions(
            text=torch.zeros(1, *expected.text, dtype=backbone.dtype),
            pose_frames=torch.zeros(1, frames, 3, height, width),
            frame_weights=backbone.latent_frame_means(torch.ones(1, frames)),
        )
        output = backbone.side_output(
            side, noised.noisy, timesteps, conditions.text, conditions.pose_frames
        )
        lisa = LisaObjective(decoder, config.alignment.taps, config.alignment.weight)
        terms = training_losses(backbone, side, noised, conditions, lisa)
        terms.total.backward()

    assert output.taps[config.alignment.taps[0]].shape == expected.feature
    for point, residual in output.residuals.points.items():
        assert (
            residual.shape[1 if residual.dim() == 4 else 2] == side.injection_points[point].channels
        ), point
    assert terms.alignment is not None
    assert terms.alignment.per_frame.shape == (1, expected.latents[2])
    for module in (side, decoder):
        assert not [key for key, p in module.named_parameters() if p.grad is None]
    assert all(p.grad is None for p in backbone.main_network.parameters())
    assert_predictions_fit(backbone, noised, conditions, output.residuals, expected)


def assert_predictions_fit(
    backbone: VideoBackbone,
    noised: NoisedLatents,
    conditions: Conditions,
    residuals: SideResiduals,
    expected: Expected,
) -> None:
    """Controlled and prior prediction have the latents' shape; the first is differentiable."""
    with torch.device("meta"):
        controlled, prior = backbone.predict_with_prior(
            noised.noisy.to(backbone.dtype),
            noised.timesteps,
            conditions.text,
            residuals.to(backbone.dtype),
        )
    assert controlled.shape == prior.shape == expected.latents
    assert controlled.requires_grad
    assert not prior.requires_grad


@pytest.mark.parametrize("name", REAL_TRAININGS)
def test_copies_match_the_published_blocks_name_by_name(name: str) -> None:
    backbone, networks = built(name)
    side, points = networks.side_network, EXPECTED[name].points
    theirs = shapes(backbone.main_network.state_dict())
    if isinstance(side, TransformerSideNetwork):
        blocks = {f"block_{index}": block for index, block in enumerate(backbone.blocks)}
        copies = [side.blocks]
        for point in points:
            assert shapes(side.blocks[point].state_dict()) == shapes(blocks[point].state_dict())
    else:
        assert isinstance(side, UNetSideNetwork)
        copies = [side.conv_in, side.time_embedding, side.down_blocks, side.mid_block]
        parts = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
        ours = {k: v for k, v in shapes(side.state_dict()).items() if k.startswith(parts)}
        assert ours == {k: v for k, v in theirs.items() if k.startswith(parts)}
    channels = [point.channels for point in side.injection_points.values()]
    projections = sum(each * each + each for each in channels)
    assert count(side) == sum(map(count, copies)) + projections + count(side.pose_encoder)


@pytest.mark.parametrize("name", REAL_TRAININGS)
def test_shipped_settings_fit_and_state_their_memory(name: str) -> None:
    path = config_path(name)
    config, text = read_training(path), path.read_text()
    assert text.startswith(
        f"# accelerate launch pipelines/train.py --config {path.relative_to(ROOT)} "
    )
    assert config.output == Path("outputs") / path.stem
    backbone, _ = built(name)
    points = chosen_points(config.side_network.injection, backbone.injection_points)
    assert set(config.alignment.taps) <= set(points)

    size = training_size(config, PUBLISHED)
    assert 0 < size.decoder_share_pct <= GOAL_PCT
    stated = re.search(r"([\d.]+) GiB frozen .* in (\w+)\) \+ ([\d.]+) GiB trained", text)
    assert stated is not None
    assert float(stated[1]) == pytest.approx(size.frozen_bytes / 2**30, abs=0.051)
    assert float(stated[3]) == pytest.approx(size.trained_bytes / 2**30, abs=0.051)
    assert stated[2] == config.mixed_precision


def changed(config: TrainConfig, section: str, **values: object) -> TrainConfig:
    return replace(config, **{section: replace(getattr(config, section), **values)})


def test_memory_counts_what_training_holds() -> None:
    config = read_training(config_path("wan/wan21_1_3b_lisa"))
    full = training_size(config, PUBLISHED)
    assert full.trained_bytes == 16 * (full.side_network + full.decoder) + 4 * full.side_network
    unaveraged = training_size(changed(config, "ema", decay=0), PUBLISHED)
    assert full.trained_bytes - unaveraged.trained_bytes == 4 * full.side_network
    plain = training_size(replace(config, objective="plain"), PUBLISHED)
    assert (plain.decoder, plain.side_network) == (0, full.side_network)
    whole = training_size(replace(config, mixed_precision="no"), PUBLISHED)
    parts = 1_418_996_800 + 126_892_531 + 5_680_910_336  # transformer, VAE, UMT5-XXL encoder
    assert whole.frozen_bytes == pytest.approx(4 * parts, rel=1e-3)
    assert math.isclose(whole.frozen_bytes / full.frozen_bytes, 2, rel_tol=0.2)


def test_the_job_prints_the_table_and_writes_it(tmp_path: Path) -> None:
    result = tmp_path / "parameters.json"
    names = ["configs/wan/wan21_1_3b_lisa.yaml", "configs/animatediff/sd15_lisa.yaml"]
    done = subprocess.run(
        [
            sys.executable,
            "pipelines/benchmark.py",
            "parameters",
            f"--trainings=[{', '.join(names)}]",
            f"--json={result}",
        ],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    header, wan, animatediff = done.stdout.splitlines()
    assert header.split()[0] == "training"
    assert wan.split()[:3] == ["wan21_1_3b_lisa", "1419.0", "M"]
    assert animatediff.split()[0] == "sd15_lisa"
    values = json.loads(result.read_text())
    assert list(values) == ["wan21_1_3b_lisa", "sd15_lisa", "versions"]
    sd15 = values["sd15_lisa"]
    assert sd15["decoder"] == 381_124  # as published: 364.2 M -> 364.6 M
    assert sd15["decoder_share_pct"] == pytest.approx(100 * 381_124 / sd15["side_network"])


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "taken.json"
    taken.write_text("{}")
    trainings = [config_path("wan/wan21_1_3b_lisa")]
    with pytest.raises(UserError, match="exists already"):
        check(ParametersBenchmarkConfig(trainings, json=taken))
    with pytest.raises(UserError, match=r"absent\.yaml"):
        check(ParametersBenchmarkConfig([tmp_path / "absent.yaml"]))
    with pytest.raises(UserError, match="trainings is empty"):
        ParametersBenchmarkConfig([])
    with pytest.raises(UserError, match="no such folder") as caught:
        training_size(read_training(trainings[0]), tmp_path)
    assert "\n" not in str(caught.value)
    settings = published_settings(BackboneConfig("a/b", motion_adapter="c/d"), Path("here"))
    assert (settings.path, settings.motion_adapter) == ("here/a/b", "here/c/d")
