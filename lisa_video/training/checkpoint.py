"""Checkpoints by step, from which a run goes on bit for bit.

    checkpoints/step_00001000/
        side_network/  average/  decoder/    weights, each as diffusers saves a model
        lora/  lora_average/                 adapters of the main network, as diffusers saves them
        state.pt                             optimizer, gradient scaler
        checkpoint.json                      step, provenance, and sizes and CRC-32 of all other files

Data order, noise and dropout depend on (seed, position) and the global random state on
(seed, step), so the step is all that is needed to go on with them; the learning rate is a function
of the step as well.

checkpoint.json is written last: what it lists is what a whole checkpoint holds.
"""

from __future__ import annotations

import copy
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors.torch import save_file
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from lisa_video.backbones.base import VideoBackbone
from lisa_video.decoder import LisaDecoder, TapDecoders, decoder_folders
from lisa_video.errors import UserError
from lisa_video.loading import load_pretrained
from lisa_video.side_networks.base import SideNetwork
from lisa_video.training.adapters import LoraWeights, swapped
from lisa_video.training.folders import replace_folder
from lisa_video.training.provenance import Provenance
from lisa_video.training.split_tensors import whole_state

FOLDER = "checkpoints"
STATE_FILE = "state.pt"
INDEX_FILE = "checkpoint.json"
FORMAT_VERSION = 2
Weights = Mapping[str, Mapping[str, Tensor]]
"""Weights of whole networks by their names, where what a process holds is a part of them."""


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
    sharing: str = ""
    """What decides which clips a step has, see `BatchStream.sharing`; empty where it is not known."""

    @classmethod
    def of(
        cls, step: int, optimizer: Optimizer, scaler: GradScaler | None, sharing: str
    ) -> CheckpointState:
        """What there is to keep after `step`; all processes call this together."""
        scaling = None if scaler is None else scaler.state_dict()
        return cls(step, whole_state(optimizer), scaling, sharing)


@dataclass(frozen=True)
class CheckpointIndex:
    """What a checkpoint says of itself."""

    step: int
    provenance: Provenance
    files: Mapping[str, tuple[int, int]]
    """Bytes and CRC-32 of each file, by its path in the checkpoint."""


def save_checkpoint(
    output: Path,
    networks: Networks,
    state: CheckpointState,
    provenance: Provenance,
    *,
    weights: Weights | None = None,
) -> Path:
    """Write a checkpoint whole or not at all.

    `weights` take the place of a network's own. Raises OSError, RuntimeError or SafetensorError
    where a file cannot be written.
    """
    path = output / FOLDER / f"step_{state.step:08d}"

    def write(folder: Path) -> None:
        for name, model in networks.named().items():
            save_network(model, folder / name, (weights or {}).get(name))
        values = {
            "optimizer": state.optimizer,
            "scaler": state.scaler,
            "sharing": state.sharing,
        }
        torch.save(values, folder / STATE_FILE)
        index = {
            "format": FORMAT_VERSION,
            "step": state.step,
            "provenance": provenance.to_json(),
            "files": {name: _measure(file) for name, file in _files(folder)},
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    replace_folder(path, write)
    return path


def save_network(
    model: ModelMixin | TapDecoders | LoraWeights,
    folder: Path,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Save a network as diffusers does; where `weights` are given, these in place of its own."""
    if weights is None:
        model.save_pretrained(folder)
    elif isinstance(model, TapDecoders):
        for tap, path in decoder_folders(folder, list(model)).items():
            own = {key: each for key, each in weights.items() if key.startswith(f"{tap}.")}
            save_network(model[tap], path, {key.removeprefix(f"{tap}."): own[key] for key in own})
    else:
        assert isinstance(model, ModelMixin)
        model.save_config(folder)
        plain = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(plain, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def checkpoints(output: Path) -> list[Path]:
    """Folders of the run's checkpoints, oldest first."""
    return sorted((output / FOLDER).glob("step_" + "[0-9]" * 8))


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(checkpoint.name.removeprefix("step_"))


def latest_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint of a run, if it has one."""
    found = checkpoints(output)
    return found[-1] if found else None


def read_index(checkpoint: Path) -> CheckpointIndex:
    """Raises UserError where there is none, or it is of another version."""
    path = checkpoint / INDEX_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format"]
        if version == FORMAT_VERSION:
            return CheckpointIndex(
                step=int(values["step"]),
                provenance=Provenance.from_json(values["provenance"]),
                files={
                    name: (int(size), int(crc)) for name, (size, crc) in values["files"].items()
                },
            )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise _damaged(path, "missing or not readable", checkpoint) from None
    raise UserError(f"{path}: checkpoint format {version}, this version reads {FORMAT_VERSION}")


def verify_checkpoint(checkpoint: Path, *, contents: bool = True) -> CheckpointIndex:
    """Look whether all files are what was written: their sizes and, with `contents`, each byte.

    Raises UserError, which names the file and says how to go on, where one is not.
    """
    index = read_index(checkpoint)
    files = dict(_files(checkpoint))
    for name, (size, crc) in index.files.items():
        path = checkpoint / name
        if name not in files:
            raise _damaged(path, "missing", checkpoint)
        try:
            if (found := path.stat().st_size) != size:
                raise _damaged(path, f"{found} bytes long instead of {size}", checkpoint)
            if contents and _checksum(path) != crc:
                raise _damaged(path, "not what was written", checkpoint)
        except OSError as error:
            raise _damaged(path, f"not readable: {error.strerror}", checkpoint) from None
    return index


def load_state(checkpoint: Path) -> CheckpointState:
    """Raises UserError where the file cannot be read or is of another version."""
    step, path = read_index(checkpoint).step, checkpoint / STATE_FILE
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        return CheckpointState(
            step, values["optimizer"], values["scaler"], values.get("sharing", "")
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        raise _damaged(path, "not readable", checkpoint) from None


def _damaged(path: Path, problem: str, checkpoint: Path) -> UserError:
    """Never silently: going on from an older checkpoint throws steps away."""
    older = [each for each in checkpoints(checkpoint.parent.parent) if each.name < checkpoint.name]
    way = f"go on from step {step_of(older[-1])}" if older else "begin again"
    return UserError(f"{path}: is {problem}; restore it, or move {checkpoint} away to {way}")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of a checkpoint but for its index, by their paths in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / INDEX_FILE:
            yield path.relative_to(folder).as_posix(), path


def _measure(path: Path) -> tuple[int, int]:
    return path.stat().st_size, _checksum(path)


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            crc = zlib.crc32(piece, crc)
    return crc


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
