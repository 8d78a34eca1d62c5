"""The memory that a piece of work really took, as torch's allocators count it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.profiler import profile

from lisa_video.backbones.base import VideoBackbone
from lisa_video.memory.tracker import module_bytes
from lisa_video.training.config import TrainConfig
from lisa_video.training.loop import train
from lisa_video.training.setup import DTYPES, make_encoder, open_backbone


def peak_allocated(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator of `device` had given out at once during `work`.

    What was allocated before does not count. On a CPU each allocation is noted by the profiler,
    kernels' own among them: that takes memory outside of the count, and some time.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as noted:
        work()
    assert noted.kineto_results is not None
    return _peak(list(_allocations(noted.kineto_results.experimental_event_tree())))


def training_peak(
    config: TrainConfig, device: torch.device, prepare: Callable[[VideoBackbone], VideoBackbone]
) -> int:
    """Most bytes that a training held at once; `prepare` may change how its backbone computes.

    The backbone is loaded beforehand, and counted by itself: weights that lie in a mapped file are
    none that an allocator gave out.
    """
    backbone = open_backbone(config.backbone, DTYPES[config.mixed_precision], encoders_later=True)
    backbone = prepare(backbone.to(device))
    held = [backbone.main_network]
    if config.data.cache is None:
        held += [backbone.vae, backbone.text_encoder]
    encoder = make_encoder(config, backbone)
    return module_bytes(*held) + peak_allocated(lambda: train(config, encoder=encoder), device)


def _allocations(events: list[Any]) -> Iterator[Any]:
    """All that was allocated or freed."""
    waiting = list(events)
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        if hasattr(event.extra_fields, "total_allocated"):
            yield event


def _peak(allocations: list[Any]) -> int:
    """Most bytes held at once, beyond what was held before the first of the allocations.

    The allocator's total goes on from earlier profiles: it never heard of what was freed between.
    """
    if not allocations:
        return 0
    first = min(allocations, key=lambda event: event.start_time_ns).extra_fields
    held = max(event.extra_fields.total_allocated for event in allocations)
    return max(held - (first.total_allocated - first.alloc_size), 0)
