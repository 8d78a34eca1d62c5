"""Learning rates as functions of the step, groups of parameters, and what moves them."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.training import optimizer as optimizer_module
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import OptimizerConfig, TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.optimizer import (
    build_optimizer,
    learning_rate,
    moment_bytes,
    parameter_groups,
    restore_optimizer,
    set_learning_rate,
)
from lisa_video.training.setup import start_networks
from tests.training.resuming import assert_resumes_exactly
from tests.training.runs import tiny_config

STEPS = 100


def rates(config: OptimizerConfig, *steps: int) -> list[float]:
    return [learning_rate(config, step, STEPS) for step in steps]


def test_constant_warms_up_and_stays() -> None:
    config = OptimizerConfig(lr=2e-4, warmup_steps=4)
    assert rates(config, 1, 2, 4, 5, 1000) == pytest.approx([0.5e-4, 1e-4, 2e-4, 2e-4, 2e-4])
    assert rates(OptimizerConfig(lr=2e-4), 1) == [2e-4]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "polynomial"])
@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_falling_schedules(schedule: Any, warmup: int, share: float) -> None:
    """They start at lr where warm-up ends, fall at every step, and end at the least share."""
    config = OptimizerConfig(lr=2.0, warmup_steps=warmup, schedule=schedule, min_lr_share=share)
    falling = rates(config, *range(max(warmup, 1), STEPS + 1))
    assert falling[0] == pytest.approx(2.0, rel=0.02)
    assert all(later < earlier for earlier, later in pairwise(falling))
    assert falling[-1] == rates(config, STEPS + 1)[0] == 2.0 * share
    assert rates(config, *range(1, warmup + 1)) == rates(
        OptimizerConfig(lr=2.0, warmup_steps=warmup), *range(1, warmup + 1)
    )
    middle = warmup + (STEPS - warmup) // 2
    assert rates(config, middle)[0] == pytest.approx(2 * share + 2 * (1 - share) / 2)

    shorter = replace(config, decay_steps=50)
    assert rates(shorter, 50, 60, STEPS) == [2.0 * share] * 3
    assert [learning_rate(shorter, step, 50) for step in range(1, 51)] == [
        learning_rate(shorter, step, 1000) for step in range(1, 51)
    ]


def test_formulas() -> None:
    cosine = OptimizerConfig(lr=1.0, schedule="cosine")
    assert rates(cosine, 25)[0] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    power = OptimizerConfig(lr=1.0, schedule="polynomial", power=3.0)
    assert rates(power, 20)[0] == pytest.approx(0.8**3)
    restarts = OptimizerConfig(lr=1.0, schedule="cosine", cycles=4)
    assert rates(restarts, 25, 50, 75) == pytest.approx([1.0, 1.0, 1.0])
    assert rates(restarts, 24, 99) == pytest.approx([(1 + math.cos(math.pi * 0.96)) / 2] * 2)
    assert rates(restarts, 100) == [0.0]


def networks(config: TrainConfig, backbone: VideoBackbone) -> Networks:
    return start_networks(config, backbone, None)


def test_by_default_each_network_is_one_group_in_order(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path, alignment__decoder_lr_scale=3.0)
    made = networks(config, encoder.backbone)
    assert made.decoder is not None
    groups = parameter_groups(config, made)
    for group, module in zip(groups, (made.side_network, made.decoder), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]
        assert group["weight_decay"] == 0.01
    assert [group["lr_scale"] for group in groups] == [1.0, 3.0]
    optimizer = build_optimizer(config.optimizer, groups)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.5]


def test_patterns_scale_and_vectors_may_stay_undecayed(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(
        clips,
        tmp_path,
        objective="plain",
        optimizer__decay_norms=False,
        optimizer__lr_scales={"down_blocks": 0.5, "motion_modules": 0.1, "projections.mid": 4.0},
        side_network__freeze=["pose_encoder"],
    )
    side = networks(config, encoder.backbone).side_network
    groups = parameter_groups(config, Networks(side, None, None))
    where = {id(p): group for group in groups for p in group["params"]}
    assert len(where) == sum(len(group["params"]) for group in groups)
    seen = set()
    for name, parameter in side.named_parameters():
        if name.startswith("pose_encoder."):
            assert id(parameter) not in where
            continue
        expected = 0.5 if name.startswith("down_blocks.") else 1.0
        expected *= 0.1 if ".motion_modules." in name else 1.0
        expected *= 4.0 if name.startswith("projections.mid.") else 1.0
        group = where[id(parameter)]
        assert group["lr_scale"] == pytest.approx(expected), name
        assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0), name
        seen.add((expected, parameter.ndim > 1))
    assert len(seen) == len(groups)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [("motion_module", "'motion_modules'"), ("pose_encoder", "there is conv_in")],
    ids=["misspelt", "frozen"],
)
def test_patterns_for_nothing_trained_are_refused(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, pattern: str, part: str
) -> None:
    config = tiny_config(
        clips,
        tmp_path,
        optimizer__lr_scales={pattern: 0.1},
        side_network__freeze=["pose_encoder"],
    )
    with pytest.raises(UserError, match=rf"lr_scales.*'{pattern}' matches nothing") as caught:
        parameter_groups(config, networks(config, encoder.backbone))
    assert part in str(caught.value)


KINDS: list[dict[str, Any]] = [
    {
        "optimizer__kind": "adamw_fused",
        "optimizer__schedule": "cosine",
        "optimizer__cycles": 2,
        "optimizer__lr_scales": {"pose_encoder": 2.0},
        "optimizer__decay_norms": False,
    },
    {"optimizer__kind": "adafactor", "optimizer__schedule": "linear", "optimizer__lr": 1e-2},
    {
        "optimizer__kind": "adamw_8bit",
        "optimizer__schedule": "polynomial",
        "optimizer__power": 2.0,
        "optimizer__min_lr_share": 0.1,
        "optimizer__decay_steps": 3,
    },
]


@pytest.mark.parametrize("changes", KINDS, ids=lambda each: each["optimizer__kind"])
def test_every_optimizer_and_schedule_goes_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert_resumes_exactly(clips, encoder, tmp_path, **changes)


def trained(kind: Any, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """After five steps on fixed gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 128), (128,)]
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    config = OptimizerConfig(kind=kind, lr=1e-2)
    group = {"params": parameters, "lr_scale": 1.0, "weight_decay": 0.1}
    optimizer = build_optimizer(config, [group])
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return parameters


def test_fused_is_adamw_and_8_bit_nearly() -> None:
    plain = trained("adamw")
    torch.testing.assert_close(trained("adamw_fused"), plain)
    for one, other in zip(trained("adamw_8bit"), plain, strict=True):
        difference = (one - other).abs()
        assert difference.mean() < 0.1 * 0.05  # of five steps of 0.01
    assert not torch.equal(trained("adamw_8bit")[0], plain[0])


def test_8_bit_keeps_a_byte_for_each_moment() -> None:
    parameter = nn.Parameter(torch.zeros(64, 128))
    group = {"params": [parameter], "lr_scale": 1.0, "weight_decay": 0.0}
    optimizer = build_optimizer(OptimizerConfig(kind="adamw_8bit"), [group])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = optimizer.state[parameter]
    assert kept["state1"].dtype == kept["state2"].dtype == torch.uint8


@pytest.mark.parametrize("kind", ["adamw", "adamw_fused", "adamw_8bit", "adafactor"])
@pytest.mark.parametrize("shape", [(3,), (5000,), (64, 128), (8, 64, 3, 3)])
def test_bytes_of_moments_are_counted(kind: Any, shape: tuple[int, ...]) -> None:
    parameter = nn.Parameter(torch.zeros(shape))
    group = {"params": [parameter], "lr_scale": 1.0, "weight_decay": 0.0}
    optimizer = build_optimizer(OptimizerConfig(kind=kind), [group])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kept = [
        value.nbytes
        for name, value in optimizer.state[parameter].items()
        # One table for all parameters maps 8 bits to values.
        if isinstance(value, torch.Tensor) and name != "step" and "qmap" not in name
    ]
    assert moment_bytes(kind, parameter.shape) == sum(kept)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["adamw_8bit", "adamw_fused"])
def test_optimizers_go_on_bit_for_bit_on_a_gpu(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, kind: str
) -> None:
    encoder.backbone.to("cuda")
    assert_resumes_exactly(clips, encoder, tmp_path, optimizer__kind=kind)


def stepped(kind: Any, count: int, **settings: Any) -> torch.optim.Optimizer:
    """After one step over as many parameters."""
    parameters = [nn.Parameter(torch.ones(3, 2)) for _ in range(count)]
    group = {"params": parameters, "lr_scale": 1.0, "weight_decay": 0.0, **settings}
    optimizer = build_optimizer(OptimizerConfig(kind=kind), [group])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_restored_state_goes_on_with_the_settings_of_now() -> None:
    state = stepped("adamw", 2).state_dict()
    optimizer = stepped("adamw", 2, lr_scale=3.0, weight_decay=0.5)
    restore_optimizer(optimizer, state)
    (group,) = optimizer.param_groups
    assert (group["lr_scale"], group["weight_decay"]) == (3.0, 0.5)
    assert optimizer.state[group["params"][0]]["step"] == 1

    restore_optimizer(stepped("adamw_fused", 2), state)
    for other in (stepped("adamw", 3), stepped("adafactor", 2), stepped("adamw_8bit", 2)):
        with pytest.raises(UserError, match="optimizer state does not fit") as caught:
            restore_optimizer(optimizer, other.state_dict())
        assert "\n" not in str(caught.value)


def test_8_bit_where_it_does_not_run_or_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: object) -> None:
        raise RuntimeError("no kernel for this device\nand more")

    group = {"params": [nn.Parameter(torch.zeros(4))], "lr_scale": 1.0, "weight_decay": 0.0}
    monkeypatch.setattr(bitsandbytes.optim.AdamW8bit, "step", step)
    with pytest.raises(UserError, match="does not run on cpu here: no kernel") as caught:
        build_optimizer(OptimizerConfig(kind="adamw_8bit"), [group])
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(optimizer_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lisa_video\[8bit\]'"):
        build_optimizer(OptimizerConfig(kind="adamw_8bit"), [group])
