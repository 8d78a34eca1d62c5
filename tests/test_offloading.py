"""Where modules compute, with and without accelerate's hooks."""

import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from torch import nn

from lisa_video.offloading import bring, execution_device


def test_hooks_tell_where_a_module_computes() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    assert execution_device(plain) == torch.device("cpu")
    bring(plain)
    layered = nn.Sequential(nn.Linear(2, 2))
    cpu_offload(layered, torch.device("cpu"))
    assert layered[0].weight.device.type == "meta"
    assert execution_device(layered) == torch.device("cpu")


def test_bring_does_what_a_call_does() -> None:
    waiting = nn.Linear(2, 2)
    cpu_offload_with_hook(waiting, torch.device("meta"))
    assert waiting.weight.device.type == "cpu"
    bring(waiting)
    assert waiting.weight.device.type == "meta"
