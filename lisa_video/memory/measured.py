"""The memory that a piece of work really took, as torch's allocators count it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.profiler import profile


def peak_allocated(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator of `device` had given out at once during `work`.

    On a CPU what was allocated before does not count, and each allocation is noted by the profiler,
    kernels' own among them: that takes memory outside of the count, and some time.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with profile(profile_memory=True) as noted:
        work()
    assert noted.kineto_results is not None
    return max(_allocated(noted.kineto_results.experimental_event_tree()), default=0)


def _allocated(events: list[Any]) -> Iterator[int]:
    """Bytes held after each allocation."""
    waiting = list(events)
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        total = getattr(event.extra_fields, "total_allocated", None)
        if total is not None:
            yield total
