"""Small real networks that stand where I3D does, as files."""

from pathlib import Path

import torch
from torch import Tensor, nn


class ColourNetwork(nn.Module):
    """(B, 3, T, 224, 224) -> (B, 6): means of colours, and of their changes in time."""

    def forward(self, clips: Tensor) -> Tensor:
        changes = (clips[:, :, 1:] - clips[:, :, :-1]).abs()
        return torch.cat([clips.mean([2, 3, 4]), changes.mean([2, 3, 4])], dim=1)


def colour_network(folder: Path, name: str = "colours") -> Path:
    """A TorchScript file of it."""
    path = folder / f"{name}.pt"
    torch.jit.script(ColourNetwork()).save(str(path))
    return path
