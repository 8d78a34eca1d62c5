"""How the processes and devices of a run work together: accelerate's part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import (
    DistributedDataParallelKwargs,
    convert_outputs_to_fp32,
    parse_flag_from_env,
)
from torch import Tensor, nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.training.agreement import mean_over_processes
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.sharding import shard_networks, sharding_settings

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Prepared:
    """The trained networks, as a step calls them."""

    side_network: nn.Module
    decoder: nn.Module | None
    """None under the plain objective."""
    synchronised: Sequence[nn.Module]
    """Those whose wrappers average gradients over processes."""
    replicated: Sequence[Tensor]
    """Weights that have no such wrapper: a decoder beside a split network, and adapters."""


def build_accelerator(config: TrainConfig) -> Accelerator:
    """Of this process, as `accelerate launch` or the environment says.

    Raises UserError for ways to share the work that a training cannot take.
    """
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "DeepSpeed cannot train two networks beside a frozen backbone; launch with "
            "configs/accelerate/fsdp2.yaml, which shares weights, gradients and optimizer as ZeRO-3 "
            "does, or fsdp2_gathered.yaml, as ZeRO-2"
        )
    if sharding_settings() is not None:
        _check_sharded(config)
    # A point without projection leaves encoder weights behind it unused.
    subset = DistributedDataParallelKwargs(
        find_unused_parameters=config.side_network.injection != "all"
    )
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.optimizer.gradient_accumulation_steps,
        kwargs_handlers=[subset],
    )
    return accelerator


def _check_sharded(config: TrainConfig) -> None:
    if config.optimizer.kind not in ("adamw", "adamw_fused"):
        raise UserError(
            f"optimizer.kind={config.optimizer.kind}: FSDP cannot split its state; take adamw or "
            "adamw_fused"
        )
    if config.lora.rank:
        raise UserError("lora: adapters do not train on a split backbone; set lora.rank 0")


def prepare_networks(
    accelerator: Accelerator, backbone: VideoBackbone, networks: Networks
) -> Prepared:
    """Wrap the trained networks for mixed precision and for the run's processes.

    Under FSDP2 their weights, and those of the backbone, are split in place; the decoder, which is
    small, stays whole in every process.
    """
    side, decoder = networks.side_network, networks.decoder
    replicated = [] if networks.lora is None else list(networks.lora.tensors.values())
    if sharding_settings() is None:
        trained = [each for each in (side, decoder) if each is not None]
        wrapped = [accelerator.prepare(each) for each in trained]
        return Prepared(
            wrapped[0], wrapped[1] if decoder is not None else None, wrapped, replicated
        )
    shard_networks(accelerator, backbone, networks)
    for each in (side, decoder):
        if each is not None and accelerator.native_amp:
            # As accelerate does for networks that it wraps itself.
            forward = torch.autocast(accelerator.device.type, backbone.dtype)(each.forward)
            each.forward = convert_outputs_to_fp32(forward)  # type: ignore[method-assign]
    if decoder is not None:
        replicated += decoder.parameters()
    return Prepared(side, decoder, [side], replicated)


def prepare_optimizer(accelerator: Accelerator, optimizer: Optimizer) -> AcceleratedOptimizer:
    """Wrap an optimizer that was made over the parameters of prepared networks."""
    if sharding_settings() is not None:
        # accelerate would prepare the networks with it.
        return accelerator.prepare_optimizer(optimizer)
    prepared: AcceleratedOptimizer = accelerator.prepare(optimizer)
    return prepared


def clip_gradients(
    accelerator: Accelerator,
    parameters: Sequence[Tensor],
    most: float,
    replicated: Sequence[Tensor],
) -> Tensor:
    """Average what no wrapper averages, and clip all gradients to the norm `most`; their norm."""
    for parameter in replicated:
        if parameter.grad is not None:
            parameter.grad = mean_over_processes(parameter.grad)
    norm = accelerator.clip_grad_norm_(parameters, most)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
