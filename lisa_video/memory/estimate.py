"""What a training needs on each device, from its configuration alone, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lisa_video.errors import UserError
from lisa_video.memory.config import Sharding, TrainJobConfig, parsed_bytes
from lisa_video.memory.simulation import (
    FakeTraining,
    StepMemory,
    encoding_memory,
    fake_training,
    largest,
    step_memory,
    text_shape,
)
from lisa_video.memory.tracker import module_bytes
from lisa_video.reports import format_table
from lisa_video.training.config import TrainConfig
from lisa_video.training.optimizer import moment_bytes
from lisa_video.training.sharding import blocks_of

GIB = 2**30
CUDA_CONTEXT = int(0.75 * GIB)
"""Context, loaded kernels and the workspaces of cuBLAS and cuDNN; it varies by device and driver."""
FRAGMENTATION = 0.03
"""Share of the activations that the CUDA allocator loses to rounding and gaps."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each device."""

    weights: Mapping[str, int]
    """Of frozen and trained weights, by part."""
    optimizer: int
    """Moments of the optimizer."""
    gradients: int
    """Of all trained weights; with buckets for their exchange under DDP."""
    working: int
    """What sharded weights that are gathered for use take."""
    batch: int
    """What the networks read, and on a CPU what the loader and the probe hold."""
    activations: int
    """Most that forward and backward hold at once, as this training is set."""
    other_activations: int
    """The same with gradient checkpointing the other way."""
    phases: Mapping[str, int]
    """Peak of each part of a step, all of the above included."""
    overhead: int
    """Of the CUDA context and allocator."""

    @property
    def resident(self) -> int:
        """Bytes that stay from step to step."""
        return sum(self.weights.values()) + self.optimizer + self.overhead

    @property
    def peak(self) -> int:
        """Most bytes at once."""
        return max(self.phases.values())


def estimate_memory(
    config: TrainConfig,
    *,
    on_cuda: bool,
    processes: int = 1,
    sharding: Sharding = "none",
    published: Path = Path("configs/published"),
) -> MemoryEstimate:
    """Build and run the training on fake tensors.

    Raises UserError where a model's configuration cannot be read, or does not fit the settings.
    """
    training = fake_training(config, published, on_cuda=on_cuda)
    steps = {
        checkpointing: step_memory(training, checkpointing=checkpointing)
        for checkpointing in (config.gradient_checkpointing, not config.gradient_checkpointing)
    }
    encoding = (0, 0) if encoded(config) else encoding_memory(training)
    return _assembled(training, steps, encoding, on_cuda, processes, sharding)


def encoded(config: TrainConfig) -> bool:
    """Whether VAE and text encoder stay on disk."""
    return config.data.cache is not None


def _assembled(
    training: FakeTraining,
    steps: Mapping[bool, StepMemory],
    encoding: tuple[int, int],
    on_cuda: bool,
    processes: int,
    sharding: Sharding,
) -> MemoryEstimate:
    config, backbone, networks = training.config, training.backbone, training.networks
    step = steps[config.gradient_checkpointing]
    trained = sum(each.numel() * each.element_size() for each in training.parameters)
    split = processes if sharding != "none" else 1

    def share(size: int) -> int:
        return -(-size // split)

    encoders = {
        "VAE": module_bytes(backbone.vae),
        "text encoder": module_bytes(backbone.text_encoder),
    }
    resident = {} if encoded(config) or config.offload == "encoders" else encoders
    weights = {
        "main network": share(module_bytes(backbone.main_network)),
        **resident,
        "side network and decoder": share(module_bytes(*training.trained)),
        "average of the side network": share(module_bytes(networks.average)),
    }
    working = 0
    if split > 1:
        working = sum(
            _gathered(network, whole=sharding == "fsdp2_gathered")
            for network in (networks.side_network, backbone.main_network)
        )
    optimizer = share(optimizer_bytes(config, training.parameters))
    buckets = trained if processes > 1 and sharding == "none" else 0
    gradients = share(trained) + buckets
    batch = step.batch + (0 if on_cuda else _host_batch(training))
    overhead = 0
    if on_cuda:
        overhead = CUDA_CONTEXT + int(FRAGMENTATION * step.activations)

    resident_bytes = sum(weights.values()) + optimizer + overhead + working
    accumulated = config.optimizer.gradient_accumulation_steps > 1
    # Without accumulation the last gradients come when the last activations go.
    grown = step.activations + trained if accumulated else step.peak
    passes = resident_bytes + buckets + batch + grown - (trained - share(trained))
    passes = max(passes, resident_bytes + buckets + batch + step.activations)
    phases = {
        "forward and backward": passes,
        "update": resident_bytes
        + gradients
        + batch
        + share(update_bytes(config, training, on_cuda)),
    }
    if not encoded(config):
        at_hand = sum(resident.values())
        brought = [0, 0] if at_hand else list(encoders.values())
        kept = resident_bytes + batch + (gradients if accumulated else buckets)
        phases["encoding"] = kept + max(map(sum, zip(encoding, brought, strict=True)))
    return MemoryEstimate(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients,
        working=working,
        batch=batch,
        activations=step.activations,
        other_activations=steps[not config.gradient_checkpointing].activations,
        phases=phases,
        overhead=overhead,
    )


def optimizer_bytes(config: TrainConfig, parameters: list[nn.Parameter]) -> int:
    """Of the optimizer's moments."""
    return sum(moment_bytes(config.optimizer.kind, each.shape) for each in parameters)


def update_bytes(config: TrainConfig, training: FakeTraining, on_cuda: bool) -> int:
    """What the optimizer makes while it updates: on CUDA a root for all weights at once, and
    elsewhere two tensors for one weight after the other; nothing where one kernel does it all."""
    if config.optimizer.kind in ("adamw_fused", "adamw_8bit"):
        return 0
    sizes = [each.numel() * each.element_size() for each in training.parameters]
    return sum(sizes) if on_cuda else 2 * max(sizes)


def _gathered(network: nn.Module, *, whole: bool) -> int:
    """Bytes of a split network that are gathered at once: what lies in no block and two blocks, one in
    use and the next; all of it where it stays gathered."""
    if whole:
        return module_bytes(network)
    sizes = sorted(module_bytes(block) for block in blocks_of(network))
    return module_bytes(network) - sum(sizes) + sum(sizes[-2:])


def _host_batch(training: FakeTraining) -> int:
    """What the loader hands over and the probe keeps, which lie on the device where that is a CPU."""
    config, backbone = training.config, training.backbone
    shape, data = largest(config), config.data
    pixels = 3 * shape.frames * shape.size[0] * shape.size[1]
    tokens, width = text_shape(backbone)
    cells = shape.size[0] * shape.size[1] // backbone.vae_scale_factor**2
    latents = backbone.latent_channels * backbone.latent_frames(shape.frames) * cells
    states = tokens * width * backbone.dtype.itemsize
    read = 4 * pixels  # drawn poses
    read += latents * backbone.dtype.itemsize + states if encoded(config) else 4 * pixels
    if not config.probe.every:
        return data.batch_size * read
    kept = 4 * pixels + states + config.probe.draws * 2 * 4 * latents
    return data.batch_size * read + config.probe.clips * kept


def format_estimate(estimate: MemoryEstimate, config: TrainConfig) -> str:
    """The table, in GiB."""
    with_it, without = ("with", "without")[:: 1 if config.gradient_checkpointing else -1]
    rows = [(name, size) for name, size in estimate.weights.items()]
    rows += [
        ("optimizer state", estimate.optimizer),
        ("gradients", estimate.gradients),
        ("weights gathered for use", estimate.working),
        ("batch", estimate.batch),
        (f"activations, {with_it} gradient checkpointing", estimate.activations),
        ("CUDA context, gaps between tensors", estimate.overhead),
    ]
    lines = [[name, f"{size / GIB:.2f}"] for name, size in rows if size]
    lines += [[f"peak in {name}", f"{size / GIB:.2f}"] for name, size in estimate.phases.items()]
    lines.append(
        [f"activations {without} gradient checkpointing", f"{estimate.other_activations / GIB:.2f}"]
    )
    return format_table(["on each device", "GiB"], lines)


def run_estimate(config: TrainJobConfig) -> None:
    """Print the estimate of a training, and whether it fits. Errors as in `estimate_memory`."""
    training = config.training
    on_cuda = _on_cuda(config)
    estimate = estimate_memory(
        training,
        on_cuda=on_cuda,
        processes=config.estimate_processes,
        sharding=config.estimate_sharding,
        published=config.estimate_published,
    )
    print(format_estimate(estimate, training))
    print(verdict(estimate.peak, _device_memory(config, on_cuda)))


def verdict(peak: int, memory: int) -> str:
    """Whether a peak fits into the memory of a device, in a line."""
    fits = peak <= memory
    left = f"{abs(memory - peak) / GIB:.2f} GiB {'left' if fits else 'too much'}"
    return (
        f"peak {peak / GIB:.2f} GiB of {memory / GIB:.2f} GiB: "
        f"{'fits' if fits else 'does not fit'}, {left}"
    )


def _on_cuda(config: TrainJobConfig) -> bool:
    if config.estimate_device == "auto":
        return torch.cuda.is_available() or config.estimate_memory is not None
    return config.estimate_device == "cuda"


def _device_memory(config: TrainJobConfig, on_cuda: bool) -> int:
    if config.estimate_memory is not None:
        return parsed_bytes(config.estimate_memory)
    if on_cuda and not torch.cuda.is_available():
        raise UserError("no GPU here: give estimate_memory, such as 24GiB")
    if on_cuda:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
