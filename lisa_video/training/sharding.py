"""Networks whose weights the processes of a run share among them: FSDP2, of torch.

Each block of a network, and what lies in none, is split evenly over all processes, and gathered for
the time in which it is used. The frozen backbone is split as well: the largest models then train on
devices that could not hold one. Gradients, optimizer state and average are split as the weights are.

Zhao et al., "PyTorch FSDP", arXiv:2304.11277.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.checkpoint import Networks, Weights


def shard_networks(accelerator: Accelerator, backbone: VideoBackbone, networks: Networks) -> None:
    """Split the backbone's main network and all networks of the run, in place.

    Their weights have to be the same in all processes. Encoders stay whole.
    """
    plugin = accelerator.state.fsdp_plugin
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    offload = isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    backbone.fingerprint()  # while the weights are whole
    for network in (backbone.main_network, *networks.named().values()):
        _shard(
            network,
            mesh=mesh,
            reshard_after_forward=bool(plugin.reshard_after_forward),
            offload_policy=CPUOffloadPolicy() if offload else OffloadPolicy(),
        )


def whole_weights(networks: Networks) -> Weights | None:
    """Weights of all networks, put together in main memory; None where no network is split.

    All processes call this together; but for the main one, they get weights that are empty.
    """
    if not is_sharded(networks.side_network):
        return None
    return {
        name: {key: _whole(tensor) for key, tensor in network.state_dict().items()}
        for name, network in networks.named().items()
    }


def whole_state(optimizer: Optimizer) -> dict[str, Any]:
    """`state_dict` of an optimizer, with whole tensors; all processes call this together."""
    state = optimizer.state_dict()
    whole = {
        index: {name: _whole(value) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": whole}


def load_whole_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Let an optimizer take a `state_dict` of whole tensors, split as its parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    split = {
        index: {name: _split_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": split})


def is_sharded(network: nn.Module) -> bool:
    """Whether the processes share this network's weights."""
    return isinstance(network, FSDPModule)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _shard(network: nn.Module, **options: Any) -> None:
    for block in _blocks(network):
        fully_shard(block, **options)
    # The rest is used all through a forward, and in a UNet's second pass through the up blocks.
    fully_shard(network, **options | {"reshard_after_forward": False})
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # diffusers writes the name of the class into configurations.
            type(module).__name__ = type(module).__name__.removeprefix("FSDP")


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The parts that a network is made of: what its lists of blocks hold, with weights."""
    holders = [
        child for child in network.children() if isinstance(child, nn.ModuleList | nn.ModuleDict)
    ]
    blocks = [block for holder in holders for block in holder.children()]
    return [block for block in blocks if any(True for _ in block.parameters())]


def _whole(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if torch.distributed.get_rank() == 0 else whole.new_empty(0)


def _split_like(value: Any, parameter: Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )
