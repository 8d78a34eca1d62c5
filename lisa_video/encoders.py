"""The frozen encoders of a checkpoint, loaded when they are first asked for.

A run that reads encodings from a cache never asks for VAE and text encoder: it needs to know which
they are, and what the VAE's settings say of sizes, but holds none of their weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import snapshot_download
from torch import nn
from transformers.utils import SAFE_WEIGHTS_NAME

from lisa_video.assets import cache_folder
from lisa_video.errors import UserError
from lisa_video.loading import (
    LOADING_ERRORS,
    ComponentTable,
    cast,
    component_class,
    first_line,
    libraries_silent,
    load_component,
    model_index,
    on_meta,
)
from lisa_video.reports import replace_text

ENCODERS = ("vae", "text_encoder")
"""Components that training asks only for what is not encoded yet."""

# What diffusers and transformers write into a configuration about the file, not about the model.
_PASSING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
_BLOCK = 2**22
_NOTED_FROM = 2**26
"""Bytes; smaller files are read in no time."""


class FrozenEncoder:
    """A VAE or text encoder: in eval mode, without gradients, its weights perhaps not yet loaded.

    Args:
        load: gives the model, in float32 on the CPU; raises UserError where it cannot.
        config: its configuration.
        content: its configuration and the files of its weights, where it comes from such.
    """

    def __init__(
        self, load: Callable[[], nn.Module], config: Any, content: EncoderFiles | None = None
    ) -> None:
        self._load, self._config, self.content = load, config, content
        self._model: nn.Module | None = None
        self.device: torch.device | str | None = None
        """Where the model is while it is asked for; None: where it was loaded."""
        self.dtype = torch.float32
        self.away = False
        """Whether it is in main memory until it is asked for, wherever `device` is."""

    @classmethod
    def of(cls, model: nn.Module) -> FrozenEncoder:
        """A model that is at hand."""
        encoder = cls(lambda: model, model.config)
        encoder.dtype = getattr(model, "dtype", torch.float32)
        encoder.model()
        return encoder

    @property
    def config(self) -> Any:
        """Its configuration, for which nothing needs to be loaded."""
        return self._config if self._model is None else self._model.config

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self._model is not None

    def model(self) -> nn.Module:
        """The model, loaded or brought back to its device if need be; errors as in `load`."""
        if self._model is None:
            self._model = self._load().eval().requires_grad_(False)
            cast(self._model, self.dtype)
            self.away = True
        if self.away and self.device is not None:
            self._model.to(device=self.device)
        self.away = False
        return self._model

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Move and cast; what is not loaded yet, when it is."""
        self.device = self.device if device is None else device
        self.dtype = self.dtype if dtype is None else dtype
        if self._model is not None:
            cast(self._model, dtype)
            if device is not None:
                self._model.to(device=device)
                self.away = False

    def park(self) -> None:
        """Move the model to main memory until it is asked for again."""
        if self._model is not None:
            self._model.to(device="cpu")
            self.away = True

    def key(self) -> str:
        """SHA-256 over class, settings, weights and dtype: over the files of the weights where it
        was loaded from such, which need not be loaded for it, and else over the weights."""
        if self.content is None:
            return module_hash(self.model())
        return self.content.key(self.dtype)


class EncoderFiles:
    """What a saved encoder is: its class, its configuration, and the files of its weights."""

    def __init__(
        self, name: str, config: Mapping[str, Any], files: Callable[[], Sequence[Path]]
    ) -> None:
        self.name, self.config, self.files = name, config, files

    def key(self, dtype: torch.dtype) -> str:
        """SHA-256 of all this and of `dtype`, which the weights are cast to."""
        files = {path.name: file_sha256(path) for path in self.files()}
        return _hash([self.name, known_settings(self.config), files, str(dtype)])


def load_components(
    path: str | PathLike[str],
    components: ComponentTable,
    hub: Mapping[str, Any],
    *,
    encoders_later: bool = False,
) -> list[Any]:
    """The named parts of a pipeline folder or hub name, each of a class that `components` allows.

    VAE and text encoder come as `FrozenEncoder`, with `encoders_later` without their weights. `hub`
    holds options of `from_pretrained`. Raises UserError where a part is missing, of another class,
    or cannot be read.
    """
    index = model_index(path, hub)
    loaders = {
        name: component_class(path, name, index.get(name), *allowed)
        for name, allowed in components.items()
    }
    parts = []
    for name, loader in loaders.items():
        if name not in ENCODERS or on_meta():
            parts.append(load_component(loader, path, name, hub))
            continue
        encoder = saved_encoder(loader, path, name, hub)
        if not encoders_later:
            encoder.model()
        parts.append(encoder)
    return parts


def saved_encoder(
    loader: Any, path: str | PathLike[str], name: str, hub: Mapping[str, Any]
) -> FrozenEncoder:
    """Component `name` of a checkpoint, without its weights.

    Raises UserError where its configuration cannot be read.
    """
    with torch.device("meta"):
        config = load_component(loader, path, name, hub).config
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return FrozenEncoder(
        load=lambda: load_component(loader, path, name, hub),
        config=config,
        content=EncoderFiles(
            loader.__name__, values, lambda: weight_files(loader, path, name, hub)
        ),
    )


def weight_files(
    loader: Any, path: str | PathLike[str], name: str, hub: Mapping[str, Any]
) -> list[Path]:
    """The files that the weights of a component are read from; UserError where there are none."""
    whole = SAFETENSORS_WEIGHTS_NAME if issubclass(loader, ModelMixin) else SAFE_WEIGHTS_NAME
    patterns = [whole, whole.replace(".safetensors", "-*-of-*.safetensors")]
    folder = Path(path) / name
    if not Path(path).is_dir():
        allowed = [f"{name}/{pattern}" for pattern in patterns]
        try:
            with libraries_silent():
                folder = Path(snapshot_download(fspath(path), allow_patterns=allowed, **hub)) / name
        except LOADING_ERRORS as error:
            raise UserError(f"{folder}: no weights there: {first_line(error)}") from None
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    if not files:
        raise UserError(f"{folder}: has no {whole}")
    return files


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content; of a large one it is remembered, in the folder of
    `LISA_VIDEO_CACHE`, while path, size and time of change stay the same."""
    state = path.stat()
    if state.st_size < _NOTED_FROM:
        return _content_sha256(path)
    known = {"file": str(path.absolute()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    note = cache_folder() / "checksums" / f"{_hash(known)}.txt"
    try:
        noted = note.read_text(encoding="ascii")
        if len(noted) == 64:
            return noted
    except (OSError, UnicodeDecodeError):
        pass  # not noted yet
    digest = _content_sha256(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        replace_text(note, digest)
    except OSError:
        pass  # nothing to write to: read it again next time
    return digest


def module_hash(module: nn.Module) -> str:
    """SHA-256 over a model's class, settings, and weights with their names, shapes and dtypes."""
    settings = getattr(module, "config", {})
    values = settings.to_diff_dict() if hasattr(settings, "to_diff_dict") else dict(settings)
    digest = hashlib.sha256(_text([type(module).__name__, known_settings(values)]).encode())
    for name, weights in sorted(module.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        plain = weights.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def known_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a configuration that say what the model is."""
    return {
        key: value
        for key, value in config.items()
        if key not in _PASSING and not key.startswith("_")
    }


def _content_sha256(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
