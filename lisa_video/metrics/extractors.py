"""Networks that turn clips into features, behind one interface.

Only the published I3D gives an FVD. The Fréchet distance of any other network's features is called
"FD-<its name>", so that nobody compares the two.

Shapes: B batch, C channels, T frames, H W pixels, D features.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from lisa_video.errors import UserError
from lisa_video.metrics.i3d import I3D, SIDE, minimum_frames
from lisa_video.metrics.i3d_weights import CHECKPOINT_SHA256, load_i3d, published_weights
from lisa_video.metrics.preprocessing import network_input, short_side_crop
from lisa_video.metrics.presets import FvdPreset

Precision = Literal["float32", "bfloat16"]

I3D_NAME = "i3d"
TORCHSCRIPT_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript")

# Six logits of the published network (torch, float32) for the clip of `_probe_clip`.
_PROBE_LOGITS = (0.51339, -0.91964, -5.38687, 0.60211, 1.54603, -3.26786)
_PROBE_CLASSES = (0, 80, 160, 240, 320, 399)
_PROBE_TOLERANCE = 0.02  # logits reach about 10


class FeatureExtractor(Protocol):
    """Features of clips."""

    name: str
    """In results and files."""
    sha256: str
    """Of the weights."""
    is_i3d: bool
    """Whether distances of its features are FVDs."""
    preprocessing: str
    """What it does to clips, in words that determine it."""
    min_frames: int
    """Frames that a clip must have at least."""

    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, T, H, W, 3), RGB -> float32 (B, D)."""
        ...


def distance_name(kind: Literal["FVD", "KVD", "FVD-infinity"], extractor: FeatureExtractor) -> str:
    """What a distance of this extractor's features is called: FVD only with the published I3D."""
    if extractor.is_i3d:
        return kind
    plain = {"FVD": "FD", "KVD": "KD", "FVD-infinity": "FD-infinity"}[kind]
    return f"{plain}-{extractor.name}"


def build_extractor(
    network: str, preset: FvdPreset, *, device: str = "cpu", precision: Precision = "float32"
) -> FeatureExtractor:
    """The extractor that a user names.

    Args:
        network: "i3d" for the published I3D, fetched once; a .safetensors file of its weights as
            this package keeps them; a TorchScript file that takes (B, 3, T, 224, 224) in [-1, 1];
            or the folder of a VideoMAE in the format of transformers.
        preset: gives resizing and pooling. A VideoMAE has its own preprocessing.
        device: as torch names it.
        precision: of I3D's layers, all but the last.

    Raises:
        UserError: no such network, or a file that is not one.
    """
    if network == I3D_NAME:
        return I3DExtractor(
            load_i3d(published_weights(), preset.pool_frames),
            preset,
            name=I3D_NAME,
            sha256=CHECKPOINT_SHA256,
            is_i3d=True,
            device=device,
            precision=precision,
        )
    path = Path(network)
    if path.is_dir():
        return VideoMAEExtractor(path, device=device)
    if not path.is_file():
        raise UserError(f"{network}: no such network; give '{I3D_NAME}', a file or a folder")
    return _from_file(path, preset, device, precision)


class I3DExtractor:
    """I3D, or a network that takes its place, under a preset's resizing.

    Args:
        network: (B, 3, T, 224, 224) in [-1, 1] -> (B, D).
        precision: "bfloat16" keeps the weights of all layers but `Logits` in it.
    """

    def __init__(
        self,
        network: nn.Module,
        preset: FvdPreset,
        *,
        name: str,
        sha256: str,
        is_i3d: bool,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.name, self.sha256, self.is_i3d = name, sha256, is_i3d
        self.preprocessing = (
            f"{preset.resize} to {SIDE}x{SIDE}, [-1, 1], average pool "
            f"({preset.pool_frames}, 7, 7), {precision}"
        )
        self.min_frames = minimum_frames(preset.pool_frames)
        self._resize, self._device = preset.resize, torch.device(device)
        self._dtype = torch.float32
        self._network = network.to(self._device)
        if precision == "bfloat16":
            assert isinstance(network, I3D)
            self._dtype = torch.bfloat16
            network.to_bfloat16()
        if not isinstance(network, ScriptNetwork):
            # A sixth faster on a CPU; a script may hold views that refuse it.
            self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(self._device)
        inputs = network_input(pixels, self._resize, SIDE).to(self._dtype)
        return _features(self._network(inputs))


class VideoMAEExtractor:
    """VideoMAE (Tong et al. 2022) from a folder in the format of transformers, for scores that
    follow motion more than content (Ge et al. 2024, arXiv:2404.12391): its tokens' mean.

    Frames are resized to the shorter side, cropped to the middle and normalised as ImageNet's.
    """

    is_i3d = False
    _MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        from transformers import VideoMAEConfig, VideoMAEModel

        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise UserError(f"{folder}: not a VideoMAE of transformers, it has no {weights.name}")
        try:
            config = VideoMAEConfig.from_pretrained(folder)
            model = VideoMAEModel.from_pretrained(folder, config=config, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder}: not a VideoMAE of transformers: {reason}") from None
        if config.model_type != "videomae":
            raise UserError(f"{folder}: holds a {config.model_type}, not a videomae")
        self.name = f"videomae-{plain_name(folder.name)}"
        self.sha256 = file_sha256(weights)
        self.min_frames = self._frames = int(config.num_frames)
        self._side = int(config.image_size)
        self.preprocessing = (
            f"short_side_crop to {self._side}x{self._side}, ImageNet mean and std, mean of tokens"
        )
        self._device = torch.device(device)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._mean, self._std = (
            torch.tensor(values, device=self._device).reshape(1, 1, 3, 1, 1)
            for values in (self._MEAN, self._STD)
        )

    @torch.inference_mode()
    def __call__(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        if clips.shape[1] != self._frames:
            raise UserError(f"{self.name} takes {self._frames} frames, clips have {clips.shape[1]}")
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(self._device)
        frames = rearrange(pixels, "b t h w c -> (b t) c h w").float()
        cropped = rearrange(
            short_side_crop(frames, self._side), "(b t) c h w -> b t c h w", b=len(clips)
        )
        inputs = (cropped / 255 - self._mean) / self._std
        return _features(self._model(inputs).last_hidden_state.mean(1))


class ScriptNetwork(nn.Module):
    """A TorchScript network. Published ones have options to resize and rescale, which are switched
    off, and one to give features and not a classification, which is switched on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self.script: Any = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError, OSError):
            raise UserError(f"{path}: not a TorchScript network") from None
        options = {"rescale": False, "resize": False, "return_features": True}
        known = {argument.name for argument in self.script.forward.schema.arguments}
        self._options = {name: value for name, value in options.items() if name in known}

    def forward(self, *inputs: Tensor) -> Any:
        return self.script(*inputs, **self._options)


def file_sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _from_file(
    path: Path, preset: FvdPreset, device: str, precision: Precision
) -> FeatureExtractor:
    network: nn.Module
    if path.suffix == ".safetensors":
        network = load_i3d(path, preset.pool_frames)
    elif path.suffix in TORCHSCRIPT_SUFFIXES:
        if precision != "float32":
            raise UserError(f"{path}: a TorchScript network runs in float32 only")
        network = ScriptNetwork(path).eval()
    else:
        suffixes = ", ".join((".safetensors", *TORCHSCRIPT_SUFFIXES))
        raise UserError(f"{path}: a network is a file with one of the suffixes {suffixes}")
    if _answers_like_i3d(path, network, preset):
        if path.suffix != ".safetensors" and preset.pool_frames != 2:
            raise UserError(
                f"{path}: pools over 2 frames, preset '{preset.name}' over {preset.pool_frames}; "
                f"give '{I3D_NAME}' or safetensors"
            )
        name, is_i3d = I3D_NAME, True
    else:
        name, is_i3d = plain_name(path.stem), False
    return I3DExtractor(
        network,
        preset,
        name=name,
        sha256=file_sha256(path),
        is_i3d=is_i3d,
        device=device,
        precision=precision,
    )


@torch.inference_mode()
def _answers_like_i3d(path: Path, network: nn.Module, preset: FvdPreset) -> bool:
    """Whether a network gives the published one's logits for a clip of noise."""
    try:
        logits = _features(network(network_input(_probe_clip(), preset.resize, SIDE)))[0]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path}: cannot take (B, 3, T, {SIDE}, {SIDE}): {reason}") from None
    if len(logits) <= max(_PROBE_CLASSES):
        return False
    found = logits[list(_PROBE_CLASSES)]
    return bool(np.abs(found - np.array(_PROBE_LOGITS)).max() < _PROBE_TOLERANCE)


def _probe_clip() -> Tensor:
    """16 frames, for which both poolings give the same; of the network's size, so that none is
    resized."""
    noise = np.random.RandomState(0).randint(0, 256, (1, 16, SIDE, SIDE, 3))
    return torch.from_numpy(noise.astype(np.uint8))


def _features(output: Any) -> NDArray[np.float32]:
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise UserError("the network gives no features (B, D)")
    return output.float().cpu().numpy()


def plain_name(text: str) -> str:
    """Letters, digits and hyphens, as in a metric's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "network"
