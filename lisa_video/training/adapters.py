"""Low-rank adapters of the main network, as a run trains, averages, keeps and resumes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lisa_video.adapters import adapted_layers, add_lora, lora_parameters, read_lora, save_lora
from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.side_networks.base import seeded
from lisa_video.training.config import TrainConfig
from lisa_video.training.draws import Purpose, stream_seed


@dataclass(frozen=True)
class LoraWeights:
    """Weights for the adapters of a backbone: those in use, or their average."""

    backbone: VideoBackbone
    tensors: Mapping[str, Tensor]
    """By the names of `lora_parameters`, float32 on the backbone's device."""

    def line(self) -> str:
        """What they are, for the user."""
        layers = len(adapted_layers(self.backbone.main_network))
        weights = sum(value.numel() for value in self.tensors.values()) / 1e6
        return f"main network: adapters in {layers} layers, {weights:.3g} M weights"

    def copied(self) -> LoraWeights:
        """The same values, apart and without gradient."""
        return LoraWeights(
            self.backbone, {name: value.detach().clone() for name, value in self.tensors.items()}
        )

    def state_dict(self) -> Mapping[str, Tensor]:
        """`tensors`, by the name that networks have for theirs."""
        return self.tensors

    @torch.no_grad()
    def take(self, values: Mapping[str, Tensor]) -> None:
        """Take over other values of the same names and shapes."""
        for name, tensor in self.tensors.items():
            tensor.copy_(values[name])

    def save_pretrained(self, folder: Path) -> None:
        """Write them as the backbone's pipeline of diffusers would."""
        backbone = self.backbone
        save_lora(
            backbone.main_network,
            self.tensors,
            folder,
            backbone.pipeline_class,
            backbone.network_name,
        )

    def load(self, folder: Path) -> None:
        """Take over saved values; UserError where they are not of these adapters."""
        stored = read_lora(folder, self.backbone.network_name)
        shapes = {name: value.shape for name, value in stored.items()}
        if shapes != {name: value.shape for name, value in self.tensors.items()}:
            raise UserError(f"{folder}: adapters of other layers or another rank than this run's")
        self.take(stored)


def start_adapters(
    config: TrainConfig, backbone: VideoBackbone, checkpoint: Path | None
) -> tuple[LoraWeights | None, LoraWeights | None]:
    """The adapters in use, put into the main network, and their average, where there are such.

    New ones depend on the seed alone. Raises UserError where they do not fit the main network.
    """
    if not config.lora.rank:
        return None, None
    settings = config.lora
    alpha = settings.rank if settings.alpha is None else settings.alpha
    with seeded(stream_seed(config.seed, Purpose.ADAPTERS)):
        add_lora(backbone.main_network, settings.rank, alpha, settings.targets)
    adapters = LoraWeights(backbone, lora_parameters(backbone.main_network))
    average = adapters.copied() if config.ema.decay else None
    if checkpoint is not None:
        adapters.load(checkpoint / "lora")
        if average is not None:
            average.load(checkpoint / "lora_average")
    return adapters, average


def moved(adapters: LoraWeights | None) -> LoraWeights | None:
    """The same adapters after the main network was given other tensors."""
    if adapters is None:
        return None
    return LoraWeights(adapters.backbone, lora_parameters(adapters.backbone.main_network))


@contextmanager
def swapped(adapters: LoraWeights | None, others: LoraWeights | None) -> Iterator[None]:
    """Let the main network use other weights of its adapters for a while; None changes nothing."""
    if adapters is None or others is None:
        yield
        return
    own = adapters.copied()
    adapters.take(others.tensors)
    try:
        yield
    finally:
        adapters.take(own.tensors)
