"""The machine that a job runs on, and the memory that it has needed."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

MIB, GIB = 2**20, 2**30
_NVIDIA = Path("/proc/driver/nvidia/version")
_CPU = Path("/proc/cpuinfo")


def describe_hardware() -> dict[str, Any]:
    """Processor, memory, GPUs and drivers of this machine; JSON values."""
    return {
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "driver": _found(r"Kernel Module\D*([\d.]+)", _NVIDIA),
    }


def peak_memory_mb(device: torch.device) -> float:
    """Most memory that this process has held, in MiB: tensors on CUDA, resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / MIB)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def _gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {"name": found.name, "memory_gib": round(found.total_memory / GIB, 1)}


def _cpu_model() -> str:
    return _found(r"model name\s*:\s*(.+)", _CPU) or platform.processor() or platform.machine()


def _found(pattern: str, path: Path) -> str | None:
    """The first group of a pattern in one of the system's own files, where there is such a file."""
    try:
        match = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1].strip() if match else None
