"""Checkpoints by step, from which a run goes on bit for bit.

    checkpoints/step_00001000/
        side_network/  average/  decoder/    weights, each as diffusers saves a model
        lora/  lora_average/                 adapters of the main network, as diffusers saves them
        state.pt                             step, optimizer, gradient scaler

Data order, noise and dropout depend on (seed, position) and the global random state on
(seed, step), so the step is all that is needed to go on with them; the learning rate is a function
of the step as well.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch.amp import GradScaler
from torch.optim import Optimizer

from lisa_video.backbones.base import VideoBackbone
from lisa_video.decoder import LisaDecoder, TapDecoders, decoder_folders
from lisa_video.errors import UserError
from lisa_video.loading import load_pretrained
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.adapters import LoraWeights, swapped

FOLDER = "checkpoints"
STATE_FILE = "state.pt"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Networks:
    """The networks of a run, unwrapped."""

    side_network: SideNetwork
    """The trained weights themselves."""
    average: SideNetwork | None
    """Their average; None where none is kept."""
    decoder: TapDecoders | None
    """None under the plain objective."""
    lora: LoraWeights | None = None
    """Adapters in the backbone's main network."""
    lora_average: LoraWeights | None = None
    """Their average; None where none is kept."""

    @property
    def finished(self) -> SideNetwork:
        """What generation should use: the average where there is one."""
        return self.side_network if self.average is None else self.average

    @property
    def finished_lora(self) -> LoraWeights | None:
        """The adapters that generation should use."""
        return self.lora if self.lora_average is None else self.lora_average

    @contextmanager
    def as_finished(self) -> Iterator[None]:
        """Let the backbone have the finished adapters, as `finished` wants them beside it."""
        with swapped(self.lora, self.lora_average):
            yield

    def named(self) -> dict[str, ModelMixin | TapDecoders | LoraWeights]:
        """Those that there are, by the name of their folder."""
        models = {
            "side_network": self.side_network,
            "average": self.average,
            "decoder": self.decoder,
            "lora": self.lora,
            "lora_average": self.lora_average,
        }
        return {name: model for name, model in models.items() if model is not None}


@dataclass(frozen=True)
class CheckpointState:
    """What a checkpoint holds beside networks."""

    step: int
    """Optimizer steps done."""
    optimizer: dict[str, Any]
    """`state_dict` of the optimizer."""
    scaler: dict[str, Any] | None
    """`state_dict` of the gradient scaler, with fp16."""

    @classmethod
    def of(cls, step: int, optimizer: Optimizer, scaler: GradScaler | None) -> CheckpointState:
        """What there is to keep after `step`."""
        return cls(step, optimizer.state_dict(), None if scaler is None else scaler.state_dict())


def save_checkpoint(output: Path, networks: Networks, state: CheckpointState, *, keep: int) -> Path:
    """Write a checkpoint whole or not at all, then remove all but the newest `keep`."""
    path = _step_folder(output, state.step)

    def write(folder: Path) -> None:
        for name, model in networks.named().items():
            model.save_pretrained(folder / name)
        values = {
            "format": FORMAT_VERSION,
            "step": state.step,
            "optimizer": state.optimizer,
            "scaler": state.scaler,
        }
        torch.save(values, folder / STATE_FILE)

    replace_folder(path, write)
    for old in checkpoints(output)[:-keep]:
        shutil.rmtree(old)
    return path


def checkpoints(output: Path) -> list[Path]:
    """Folders of the run's checkpoints, oldest first."""
    return sorted((output / FOLDER).glob("step_" + "[0-9]" * 8))


def latest_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint of a run, if it has one."""
    found = checkpoints(output)
    return found[-1] if found else None


def load_state(checkpoint: Path) -> CheckpointState:
    """Raises UserError where the file cannot be read or is of another version."""
    path = checkpoint / STATE_FILE
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        version = values["format"]
        if version == FORMAT_VERSION:
            return CheckpointState(values["step"], values["optimizer"], values["scaler"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        raise UserError(
            f"{path}: not a readable checkpoint; remove {checkpoint} to go on from the one before"
        ) from None
    raise UserError(f"{path}: checkpoint format {version}, this version reads {FORMAT_VERSION}")


def load_trainable(folder: Path, backbone: VideoBackbone, taps: Sequence[str]) -> SideNetwork:
    """The side network saved in `folder`, on `backbone`'s device, handing out `taps`.

    Raises UserError where the folder holds none, where it was made for another backbone, or where
    it has no zero projection at one of `taps`.
    """
    side: SideNetwork = _load(backbone.side_network_class, folder, taps=list(taps))
    try:
        side.check_backbone(backbone)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    side.train()
    return side.to(backbone.device)


def load_decoder(folder: Path, backbone: VideoBackbone, taps: Sequence[str]) -> TapDecoders:
    """The LISA decoders of `taps` saved in `folder`, on `backbone`'s device; UserError where there
    are none."""
    folders = decoder_folders(folder, taps)
    decoders = TapDecoders({tap: _load(LisaDecoder, path) for tap, path in folders.items()})
    decoders.train()
    return decoders.to(backbone.device)


def _load(loader: type[ModelMixin], folder: Path, **options: Any) -> Any:
    # Loaded weights are views of the file, at any address; a copy has torch's own alignment, and
    # without that BLAS may round the last bit of a sum another way than before the checkpoint.
    return copy.deepcopy(load_pretrained(loader, folder, local_files_only=True, **options))


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder beside `path`, then put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)


def _step_folder(output: Path, step: int) -> Path:
    return output / FOLDER / f"step_{step:08d}"
