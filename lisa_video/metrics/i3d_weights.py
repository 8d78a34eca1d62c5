"""I3D's weights: from the published checkpoint, or from a file of the user's.

The checkpoint that `fetch_asset("i3d")` brings is a pickle of NumPy arrays, a port of the network
on TF-hub that FVD is defined with. It is read without running anything it may name, and kept as
safetensors in the cache.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lisa_video.assets import ASSETS, cache_folder, fetch_asset
from lisa_video.errors import UserError
from lisa_video.metrics.i3d import I3D

CHECKPOINT = "i3d-kinetics-400.ckpt"
CHECKPOINT_SHA256 = ASSETS["i3d"].members[CHECKPOINT]
BATCH_NORM_EPSILON = 1e-3  # Sonnet's, which trained it


def published_weights() -> Path:
    """Safetensors of the published network, made from the fetched checkpoint on the first call.

    Raises UserError where the checkpoint cannot be fetched or the cache cannot be written.
    """
    path = cache_folder() / f"i3d-kinetics-400-{CHECKPOINT_SHA256[:12]}.safetensors"
    if not path.is_file():
        weights = convert(read_checkpoint(fetch_asset("i3d") / CHECKPOINT))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_file(weights, temporary)
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)
    return path


def load_i3d(path: Path, pool_frames: int) -> I3D:
    """The network with weights from a safetensors file as `convert` names them.

    Raises UserError where it is not such a file.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError):
        raise UserError(f"{path}: not a safetensors file; remove it, or give another") from None
    network = I3D(pool_frames)
    _check_shapes(path, weights, network.state_dict())
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The nested dicts of arrays of a checkpoint; raises UserError where it names anything else."""
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except (OSError, EOFError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as e:
        if isinstance(e, UserError):
            raise UserError(f"{path}: {e}") from None
        raise UserError(f"{path}: not a checkpoint of NumPy arrays") from None
    if not isinstance(content, dict) or not {"params", "batch_stats"} <= content.keys():
        raise UserError(f"{path}: not an I3D checkpoint, 'params' and 'batch_stats' are missing")
    return content


def convert(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights by the names of `I3D`, with the batch normalisation folded into the convolutions.

    y = (w x - mean) / sqrt(var + eps) + beta, so that w' = w / sqrt(var + eps) and
    b' = beta - mean / sqrt(var + eps); there is no scale. Folded in float64.
    """
    statistics = dict(_layers(checkpoint["batch_stats"]))
    weights: dict[str, Tensor] = {}
    for name, layer in _layers(checkpoint["params"]):
        kernel = layer["Conv_0"]["kernel"].astype(np.float64).transpose(4, 3, 0, 1, 2)
        bias = layer["Conv_0"].get("bias")
        if bias is None:
            normal = statistics[name]["BatchNorm_0"]
            scale = 1 / np.sqrt(normal["var"].astype(np.float64).ravel() + BATCH_NORM_EPSILON)
            kernel = kernel * scale[:, None, None, None, None]
            bias = layer["BatchNorm_0"]["bias"] - normal["mean"].ravel() * scale
        plain = name.removesuffix(".Conv3d_0c_1x1")
        weights[f"{plain}.weight"] = _float32(kernel)
        weights[f"{plain}.bias"] = _float32(bias)
    return weights


def _layers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted name and arrays of each convolution or batch normalisation, depth first."""
    for key, value in tree.items():
        name = prefix + key.replace("/", ".")
        if value.keys() & {"Conv_0", "BatchNorm_0"}:
            yield name, value
        else:
            yield from _layers(value, f"{name}.")


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays and nothing else: a pickle can name any function to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module.replace("_core", "core") == "numpy.core.multiarray":
            return _empty_array
        raise UserError(f"refused: it asks for {module}.{name}, and holds more than NumPy arrays")


def _empty_array(kind: type, shape: tuple[int, ...], code: str | bytes) -> NDArray[Any]:
    """What NumPy's `_reconstruct` does for plain arrays; the content follows by `__setstate__`."""
    if kind is not np.ndarray:
        raise UserError("refused: it holds another type than plain NumPy arrays")
    return np.ndarray(shape, np.dtype(code.decode() if isinstance(code, bytes) else code))


def _float32(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _check_shapes(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        if name not in found:
            raise UserError(f"{path}: not an I3D network of this package, '{name}' is missing")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: '{name}' is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            )
    if found.keys() - wanted.keys():
        raise UserError(
            f"{path}: not an I3D network, it also has '{min(found.keys() - wanted.keys())}'"
        )
