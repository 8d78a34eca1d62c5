"""Networks whose weights the processes of a run share among them: FSDP2, of torch.

Each block of a network, and what lies in none, is split evenly over all processes, and gathered for
the time in which it is used. The frozen backbone is split as well: the largest models then train on
devices that could not hold one. Gradients, optimizer state and average are split as the weights are.

Zhao et al., "PyTorch FSDP", arXiv:2304.11277.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.training.checkpoint import Networks, Weights
from lisa_video.training.config import TrainConfig
from lisa_video.training.split_tensors import is_partitioned, is_sharded, whole
from lisa_video.training.zero import gathered_states


@dataclass(frozen=True)
class ShardingSettings:
    """What a config of accelerate says of FSDP."""

    reshard_after_forward: bool
    """Whether blocks are split again between forward and backward."""
    offload: bool
    """Whether each process keeps its part in main memory, where the optimizer then works."""


def sharding_settings() -> ShardingSettings | None:
    """Those that `accelerate launch` has set for this process; None where nothing is split.

    Raises UserError for the first version of FSDP.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("FSDP: only its second version trains here; set fsdp_version: 2")
    return ShardingSettings(
        reshard_after_forward=parse_flag_from_env("FSDP_RESHARD_AFTER_FORWARD", True),
        offload=parse_flag_from_env("FSDP_OFFLOAD_PARAMS"),
    )


def check_sharding(config: TrainConfig) -> None:
    """Raise UserError for what trains only where each process has all weights."""
    if sharding_settings() is None:
        return
    if config.lora.rank:
        raise UserError(
            "FSDP: adapters train where each process has all of the backbone; launch without it, "
            "or set lora.rank 0"
        )
    kind = config.optimizer.kind
    if kind not in ("adamw", "adamw_fused"):
        raise UserError(f"FSDP: optimizer.kind={kind} needs whole weights; give adamw")


def shard_networks(accelerator: Accelerator, backbone: VideoBackbone, networks: Networks) -> None:
    """Split the backbone's main network, the side network and its average, in place.

    Their weights have to be the same in all processes. Encoders and decoder stay whole.
    """
    settings = sharding_settings()
    assert settings is not None
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    backbone.fingerprint()  # while the weights are whole
    for network in (backbone.main_network, networks.side_network, networks.average):
        if network is None:
            continue
        _shard(
            network,
            mesh=mesh,
            reshard_after_forward=settings.reshard_after_forward,
            offload_policy=CPUOffloadPolicy() if settings.offload else OffloadPolicy(),
        )
    for network in (networks.side_network, networks.average):
        if network is not None:
            register_fsdp_forward_method(network, "encode_poses")


def whole_weights(networks: Networks) -> Weights | None:
    """Weights of the networks that are split, put together in main memory of the main process; None
    where they are not split. All processes call this together."""
    if not is_sharded(networks.side_network):
        return None
    if is_partitioned(networks.side_network):
        return gathered_states(
            {key: each for key, each in networks.named().items() if isinstance(each, nn.Module)}
        )
    return {
        name: {key: whole(tensor) for key, tensor in network.state_dict().items()}
        for name, network in networks.named().items()
        if is_sharded(network)
    }


def _shard(network: nn.Module, **options: Any) -> None:
    for block in blocks_of(network):
        fully_shard(block, **options)
    # The rest is used all through a forward, and in a UNet's second pass through the up blocks.
    fully_shard(network, **options | {"reshard_after_forward": False})
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # diffusers writes the name of the class into configurations.
            type(module).__name__ = type(module).__name__.removeprefix("FSDP")


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The parts that a network is made of: what its lists of blocks hold, with weights."""
    holders = [
        child for child in network.children() if isinstance(child, nn.ModuleList | nn.ModuleDict)
    ]
    blocks = [block for holder in holders for block in holder.children()]
    return [block for block in blocks if any(True for _ in block.parameters())]
