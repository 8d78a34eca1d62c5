"""Tensors that the processes of a run share among them, whole and in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def is_sharded(network: object) -> bool:
    """Whether the processes share a network's weights."""
    return isinstance(network, FSDPModule) or is_partitioned(network)


def is_partitioned(network: object) -> bool:
    """Whether it is DeepSpeed that splits a network's weights."""
    return isinstance(network, nn.Module) and any(
        hasattr(each, "ds_id") for each in network.parameters()
    )


@contextmanager
def gathered(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Have the tensors that DeepSpeed splits whole in each process; all enter this together."""
    split = [each for each in tensors if hasattr(each, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split):
        yield


def own_parts(network: nn.Module) -> list[Tensor]:
    """What this process holds of each parameter."""
    for module in network.modules():  # A forward without a backward may have left them whole.
        if isinstance(module, FSDPModule):
            module.reshard()
    return [each.to_local() if isinstance(each, DTensor) else each for each in network.parameters()]


def whole(value: Any) -> Any:
    """A split tensor put together in main memory, in the main process; empty in the others, which
    call this together with it. Anything else as it is."""
    if not isinstance(value, DTensor):
        return value
    together = value.full_tensor()
    return together.cpu() if torch.distributed.get_rank() == 0 else together.new_empty(0)


def whole_state(optimizer: Optimizer) -> dict[str, Any]:
    """`state_dict` of an optimizer, with whole tensors; all processes call this together."""
    state = optimizer.state_dict()
    together = {
        index: {name: whole(value) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": together}


def load_whole_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Let an optimizer take a `state_dict` of whole tensors, split as its parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    split = {
        index: {name: _split_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": split})


def _split_like(value: Any, parameter: Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )
