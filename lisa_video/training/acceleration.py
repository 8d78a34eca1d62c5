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
    patch_environment,
)
from torch import Tensor, nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.training.agreement import mean_over_processes
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.sharding import shard_networks, sharding_settings
from lisa_video.training.zero import FLAG, ZeroOptimizer, check_zero, zero_stage

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
    check_zero(config)
    if sharding_settings() is not None:
        _check_sharded(config)
    # A point without projection leaves encoder weights behind it unused.
    subset = DistributedDataParallelKwargs(
        find_unused_parameters=config.side_network.injection != "all"
    )
    # accelerate's own DeepSpeed takes one network, and splits those that transformers loads.
    with patch_environment(**{FLAG: "false"}):
        return Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.optimizer.gradient_accumulation_steps,
            kwargs_handlers=[subset],
        )


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
    if sharding_settings() is None and zero_stage() is None:
        trained = [each for each in (side, decoder) if each is not None]
        wrapped = [accelerator.prepare(each) for each in trained]
        return Prepared(
            wrapped[0], wrapped[1] if decoder is not None else None, wrapped, replicated
        )
    if zero_stage() is None:
        shard_networks(accelerator, backbone, networks)
    for each in (side, decoder):
        if each is not None and accelerator.native_amp:
            # As accelerate does for networks that it wraps itself.
            forward = torch.autocast(accelerator.device.type, backbone.dtype)(each.forward)
            each.forward = convert_outputs_to_fp32(forward)  # type: ignore[method-assign]
    if zero_stage() is not None:
        # The optimizer averages their gradients.
        return Prepared(side, decoder, [], [])
    if decoder is not None:
        replicated += decoder.parameters()
    return Prepared(side, decoder, [side], replicated)


def prepare_optimizer(
    accelerator: Accelerator, optimizer: Optimizer, prepared: Prepared, config: TrainConfig
) -> AcceleratedOptimizer | ZeroOptimizer:
    """Wrap an optimizer that was made over the parameters of prepared networks."""
    if zero_stage() is not None:
        trained = [each for each in (prepared.side_network, prepared.decoder) if each is not None]
        return ZeroOptimizer(trained, optimizer, config, accelerator.device.type)
    if sharding_settings() is not None:
        # accelerate would prepare the networks with it.
        return accelerator.prepare_optimizer(optimizer)
    wrapped: AcceleratedOptimizer = accelerator.prepare(optimizer)
    return wrapped


def backward(accelerator: Accelerator, optimizer: Optimizer, loss: Tensor) -> None:
    """Add a pass's gradients to those of the step."""
    if isinstance(optimizer, ZeroOptimizer):
        optimizer.backward(loss, last=accelerator.sync_gradients)
    else:
        accelerator.backward(loss)


def clip_gradients(
    accelerator: Accelerator,
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    most: float,
    replicated: Sequence[Tensor],
) -> Tensor:
    """Average what no wrapper averages, and clip all gradients to the norm `most`; their norm.

    Under DeepSpeed this makes the step as well, unless that norm is not finite.
    """
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.update()
    for parameter in replicated:
        if parameter.grad is not None:
            parameter.grad = mean_over_processes(parameter.grad)
    norm = accelerator.clip_grad_norm_(parameters, most)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
