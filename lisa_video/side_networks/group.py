"""Several side networks of one backbone as one part of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers import ModelMixin
from torch import nn
from typing_extensions import Self

from lisa_video.side_networks.base import SideNetwork

if TYPE_CHECKING:
    from lisa_video.backbones.base import VideoBackbone


class SideNetworkGroup(ModelMixin):
    """Side networks whose residuals are summed, in their order.

    Saved as folders side by side: that of the first has the name given, the others have _1, _2 and
    so on after it.
    """

    def __init__(self, networks: Iterable[SideNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        assert len(self.networks)

    def __iter__(self) -> Iterator[SideNetwork]:
        yield from self.networks  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.networks)

    def check_backbone(self, backbone: VideoBackbone) -> None:
        """Raise UserError unless all were built from `backbone`."""
        for network in self:
            network.check_backbone(backbone)

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> None:
        """Write each network into a folder of its own."""
        for index, network in enumerate(self):
            network.save_pretrained(_folder(save_directory, index), **options)

    @classmethod
    def from_pretrained(cls, path: str | PathLike[str], **options: Any) -> Self:
        """The networks that `save_pretrained` wrote, float32."""
        from lisa_video.backbones import load_side_network

        networks = [load_side_network(path)]
        while Path(_folder(path, len(networks))).is_dir():
            networks.append(load_side_network(_folder(path, len(networks))))
        return cls(networks)


def _folder(path: str | PathLike[str], index: int) -> str:
    return f"{fspath(path)}_{index}" if index else fspath(path)
