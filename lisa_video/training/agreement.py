"""What the processes of a run must agree on, lest one waits for another for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, distributed

from lisa_video.errors import UserError

Value = TypeVar("Value")


def any_process(accelerator: Accelerator, *wishes: bool) -> list[bool]:
    """For each wish, whether any process has it; all processes call this together."""
    if accelerator.num_processes == 1:
        return list(wishes)
    votes = torch.tensor(wishes, dtype=torch.float32, device=accelerator.device)
    return [bool(vote) for vote in accelerator.reduce(votes, "sum").tolist()]


def mean_over_processes(value: Tensor) -> Tensor:
    """Of a tensor of the same shape in each process; all processes call this together."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return value
    mean = value.detach().clone()
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


def in_main_process(accelerator: Accelerator, work: Callable[[], Value]) -> Value | None:
    """What `work` gives in the main process, None in the others, which wait for it.

    All processes call this together, and a UserError of `work` is raised in all of them.
    """
    result, problem = None, None
    if accelerator.is_main_process:
        try:
            result = work()
        except UserError as error:
            problem = str(error)
    (problem,) = broadcast_object_list([problem])
    if problem is not None:
        raise UserError(problem)
    return result


def from_all_processes(values: list[Value]) -> list[Value]:
    """The values of all processes in one list; all processes call this together."""
    gathered: list[Value] = gather_object(values)
    return gathered


def require_same(value: str, problem: str) -> None:
    """UserError of `problem` in all processes where they have different values."""
    if len(set(from_all_processes([value]))) > 1:
        raise UserError(problem)
