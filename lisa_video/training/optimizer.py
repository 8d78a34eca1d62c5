"""What moves the trained weights, and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lisa_video.errors import UserError
from lisa_video.loading import first_line
from lisa_video.name_patterns import matched, matches
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import OptimizerConfig, TrainConfig
from lisa_video.training.config.optimizer import OptimizerKind
from lisa_video.training.split_tensors import load_whole_state

ParameterGroup = dict[str, Any]
"""A group as torch's optimizers take them: `params`, `weight_decay`, and its `lr_scale`."""

# Settings in a group that AdamW, Adafactor and bitsandbytes have, each for itself.
OWN_SETTINGS = {"amsgrad", "beta2_decay", "t_alpha"}
SMALLEST_8BIT = 4096  # weights of a tensor; bitsandbytes keeps smaller ones in 32 bits
BLOCK_8BIT = 256  # weights that share a scale


def parameter_groups(config: TrainConfig, networks: Networks) -> list[ParameterGroup]:
    """All trained parameters: those of side network, LISA decoder and adapters, in this order.

    One group each, or more where `lr_scales` or `decay_norms` tell its parameters apart. Raises
    UserError where a pattern of `lr_scales` stands for no trained parameter.
    """
    side = _trained(networks.side_network)
    scales = _side_scales(config.optimizer.lr_scales, list(side))
    groups = _groups(config.optimizer, side, scales)
    if networks.decoder is not None:
        decoder = _trained(networks.decoder)
        scale = config.alignment.decoder_lr_scale
        groups += _groups(config.optimizer, decoder, dict.fromkeys(decoder, scale))
    if networks.lora is not None:
        adapters = networks.lora.tensors
        groups += _groups(config.optimizer, adapters, dict.fromkeys(adapters, config.lora.lr_scale))
    return groups


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """The optimizer of `config.kind` over the groups; UserError where this machine cannot run it."""
    given = list(groups)
    match config.kind:
        case "adamw":
            return torch.optim.AdamW(given, lr=config.lr, betas=config.betas)
        case "adamw_fused":
            try:
                return torch.optim.AdamW(given, lr=config.lr, betas=config.betas, fused=True)
            except RuntimeError as error:
                raise UserError(f"optimizer.kind=adamw_fused: {first_line(error)}") from None
        case "adamw_8bit":
            _check_8bit(given[0]["params"][0].device)
            import bitsandbytes

            eight_bit: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
                given, lr=config.lr, betas=config.betas, min_8bit_size=SMALLEST_8BIT
            )
            return eight_bit
        case "adafactor":
            return torch.optim.Adafactor(given, lr=config.lr)


def moment_bytes(kind: OptimizerKind, shape: torch.Size) -> int:
    """What the optimizer keeps of a parameter of this shape, but for counters."""
    size = shape.numel()
    match kind:
        case "adamw_8bit" if size >= SMALLEST_8BIT:
            scales = 4 * -(-size // BLOCK_8BIT)
            return 2 * (size + scales)
        case "adafactor":
            return 4 * size if len(shape) < 2 else 4 * (size // shape[-1] + size // shape[-2])
        case _:
            return 2 * 4 * size


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Go on from a saved `state_dict` with the settings of now; UserError where it does not fit."""
    stored, groups = state["param_groups"], optimizer.param_groups
    try:
        pairs = list(zip(stored, groups, strict=True))
        if any(len(old["params"]) != len(now["params"]) for old, now in pairs):
            raise ValueError("it is of other parameters")
        if any(_kinds(old) != _kinds(now) for old, now in pairs):
            raise ValueError("it is of another kind")
        merged = [{**old, **now, "params": old["params"]} for old, now in pairs]
        load_whole_state(optimizer, {"state": state["state"], "param_groups": merged})
    except ValueError as error:
        raise UserError(
            "resume: the checkpoint's optimizer state does not fit optimizer.kind, or what these "
            f"settings train: {first_line(error)}"
        ) from None


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group `rate` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Of the update that makes step `step`, from 1, in a run of `steps`.

    Linear warm-up, then the share of `lr` that the schedule has left.
    """
    warm = config.lr * min(1.0, step / max(1, config.warmup_steps))
    falls_until = config.falls_until(steps)
    if falls_until is None or step <= config.warmup_steps:
        return warm
    done = min(1.0, (step - config.warmup_steps) / (falls_until - config.warmup_steps))
    return config.lr * (config.min_lr_share + (1 - config.min_lr_share) * _left(config, done))


def _left(config: OptimizerConfig, done: float) -> float:
    """What is left of the fall, from 1 to 0, at a share `done` of it.

    Cosine with restarts: Loshchilov and Hutter, "SGDR", arXiv:1608.03983, eq. 5, in equal periods.
    """
    match config.schedule:
        case "cosine":
            phase = 1.0 if done == 1 else config.cycles * done % 1
            return (1 + math.cos(math.pi * phase)) / 2
        case "polynomial":
            return float((1 - done) ** config.power)
        case _:
            return 1 - done


def _kinds(group: ParameterGroup) -> set[str]:
    return OWN_SETTINGS & group.keys()


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _side_scales(patterns: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Each parameter's factor: the product of those of the patterns that stand for it."""
    for pattern in patterns:
        matched(pattern, names, "optimizer.lr_scales (trained parts of the side network)")
    return {
        name: math.prod(scale for pattern, scale in patterns.items() if matches(pattern, name))
        for name in names
    }


def _groups(
    config: OptimizerConfig, parameters: Mapping[str, Tensor], scales: Mapping[str, float]
) -> list[ParameterGroup]:
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for name, parameter in parameters.items():
        decays = config.decay_norms or parameter.ndim > 1
        key = (scales[name], config.weight_decay if decays else 0.0)
        if key not in groups:
            groups[key] = {"params": [], "lr_scale": key[0], "weight_decay": key[1]}
        groups[key]["params"].append(parameter)
    return list(groups.values())


def _check_8bit(device: torch.device) -> None:
    """Raise UserError unless 8-bit AdamW is there and makes a step on this device."""
    kind = "optimizer.kind=adamw_8bit"
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{kind}: needs bitsandbytes; pip install 'lisa_video[8bit]'")
    try:
        import bitsandbytes

        trial = nn.Parameter(torch.zeros(SMALLEST_8BIT, device=device))
        trial.grad = torch.zeros_like(trial)
        bitsandbytes.optim.AdamW8bit([trial], min_8bit_size=SMALLEST_8BIT).step()
    except (ImportError, OSError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise UserError(
            f"{kind}: bitsandbytes does not run on {device.type} here: {first_line(error)}"
        ) from None
