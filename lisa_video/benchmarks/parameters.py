"""How large a training is before its activations: parameters and memory, from configurations alone.

For each training config the backbone, the side network and the LISA decoder are built on torch's
meta device, by the code that a training builds them with, from the checkpoint's published
configuration. No weights are read, so the largest training is counted on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lisa_video.backbones.base import VideoBackbone
from lisa_video.benchmarks.config import ParametersBenchmarkConfig
from lisa_video.cli import parse_config
from lisa_video.reports import check_new_file, format_table, package_versions, write_json
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import BackboneConfig, TrainConfig
from lisa_video.training.setup import DTYPES, new_networks, open_backbone

GIB = 2**30
TRAINED_COPIES = 4
"""A trained weight has its gradient and AdamW's two moments beside it."""


@dataclass(frozen=True)
class TrainingSize:
    """Parameters of a training, and the bytes that it holds before the first activation."""

    backbone: int
    """Parameters of the main network, frozen."""
    side_network: int
    """Parameters, trained."""
    decoder: int
    """Parameters of the LISA decoder, trained; 0 under the plain objective."""
    trained_bytes: int
    """float32 weights, gradients and AdamW moments of both, and the average of the first."""
    frozen_bytes: int
    """Main network, VAE and text encoder in the precision of the training."""

    @property
    def decoder_share_pct(self) -> float:
        """The decoder's parameters, in percent of the side network's."""
        return 100 * self.decoder / self.side_network

    def to_json(self) -> dict[str, Any]:
        """Counts, the share, and memory in GiB."""
        return {
            "backbone": self.backbone,
            "side_network": self.side_network,
            "decoder": self.decoder,
            "decoder_share_pct": self.decoder_share_pct,
            "trained_gib": self.trained_bytes / GIB,
            "frozen_gib": self.frozen_bytes / GIB,
        }


def check(config: ParametersBenchmarkConfig) -> None:
    """Raises UserError for the output file or a training config; counting finds all else at once."""
    if config.json is not None:
        check_new_file(config.json)
    for path in config.trainings:
        read_training(path)


def run(config: ParametersBenchmarkConfig) -> None:
    """Count, print the table and write the JSON file."""
    sizes = {
        path.stem: training_size(read_training(path), config.published) for path in config.trainings
    }
    print(format_sizes(sizes))
    if config.json is not None:
        versions = {"versions": package_versions("torch", "diffusers", "transformers")}
        write_json(config.json, {name: size.to_json() for name, size in sizes.items()} | versions)


def read_training(path: Path) -> TrainConfig:
    """A training config; no clips are read, so the folder that it leaves open may be any."""
    arguments = ["--config", str(path), "--data.root", "."]
    return parse_config(TrainConfig, arguments, "")[0]


def weightless_networks(config: TrainConfig, published: Path) -> tuple[VideoBackbone, Networks]:
    """The backbone in the precision of the training and its networks at step 0, all on meta."""
    with torch.device("meta"):
        settings = published_settings(config.backbone, published)
        backbone = open_backbone(settings, DTYPES[config.mixed_precision])
        return backbone, new_networks(config, backbone)


def published_settings(settings: BackboneConfig, published: Path) -> BackboneConfig:
    """The settings with each hub name replaced by the folder of its configurations."""
    adapter = settings.motion_adapter
    return replace(
        settings,
        path=str(published / settings.path),
        motion_adapter=None if adapter is None else str(published / adapter),
    )


def training_size(config: TrainConfig, published: Path) -> TrainingSize:
    """Count a training. Raises UserError where its configuration is not among the published."""
    backbone, networks = weightless_networks(config, published)
    trained: list[nn.Module] = [networks.side_network]
    if networks.decoder is not None:
        trained.append(networks.decoder)
    average = [] if networks.average is None else [networks.average]
    return TrainingSize(
        backbone=_parameters(backbone.main_network),
        side_network=_parameters(networks.side_network),
        decoder=_parameters(networks.decoder) if networks.decoder else 0,
        trained_bytes=TRAINED_COPIES * _bytes(trained) + _bytes(average),
        frozen_bytes=_bytes([backbone.main_network, backbone.vae, backbone.text_encoder]),
    )


def format_sizes(sizes: dict[str, TrainingSize]) -> str:
    """The table, one row for each training."""
    header = ["training", "backbone", "side network", "LISA decoder", "share", "trained", "frozen"]
    rows: Sequence[Sequence[str]] = [
        [
            name,
            f"{size.backbone / 1e6:.1f} M",
            f"{size.side_network / 1e6:.1f} M",
            f"{size.decoder / 1e6:.2f} M",
            f"{size.decoder_share_pct:.3f} %",
            f"{size.trained_bytes / GIB:.1f} GiB",
            f"{size.frozen_bytes / GIB:.1f} GiB",
        ]
        for name, size in sizes.items()
    ]
    return format_table(header, rows)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(modules: Iterable[nn.Module]) -> int:
    tensors = chain.from_iterable(chain(m.parameters(), m.buffers()) for m in modules)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
