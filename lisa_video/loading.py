"""`from_pretrained` of diffusers and transformers, for users: safe weights, errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import ConfigMixin, ModelMixin
from torch import nn
from transformers import PreTrainedModel

from lisa_video.errors import UserError

LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError)


def load_pretrained(
    loader: Any, path: str | PathLike[str], subfolder: str = "", **options: Any
) -> Any:
    """Load an object of class `loader` from a folder or hub name; weights come in float32.

    Weights are read from safetensors only. `options` go to `from_pretrained`. Raises UserError
    where nothing is there, it is of another class, or it cannot be read.
    """
    where = Path(path) / subfolder
    check_source(path)
    try:
        with libraries_silent():
            if issubclass(loader, ConfigMixin):
                _check_class(loader, path, subfolder, options)
            return loader.from_pretrained(
                fspath(path), subfolder=subfolder, **_weight_options(loader), **options
            )
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"{where}: not a loadable {loader.__name__}: {first_line(error)}") from None


def check_source(path: str | PathLike[str]) -> None:
    """Raise UserError where `path` is no folder and no hub name either, without asking the hub."""
    folder = Path(path)
    if not folder.is_dir() and (folder.is_absolute() or fspath(path).count("/") != 1):
        raise UserError(f"{path}: no such folder, and no hub name of the form owner/name")


def cast(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Cast in place. diffusers would warn for each model that nothing of it stays in float32."""
    with libraries_silent():
        module.to(dtype=dtype)


@contextmanager
def libraries_silent() -> Iterator[None]:
    """No bars of transformers, and no errors printed by diffusers that it raises as well."""
    level = diffusers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    diffusers.logging.set_verbosity(diffusers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """An exception's message without what follows its first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_class(
    loader: Any, path: str | PathLike[str], subfolder: str, options: dict[str, Any]
) -> None:
    """diffusers itself builds another class's configuration into this one, as far as it goes."""
    config = loader.load_config(fspath(path), subfolder=subfolder, **options)
    name = config.get("_class_name", loader.__name__)
    if name != loader.__name__:
        raise UserError(f"{Path(path) / subfolder}: holds a {name}, expected a {loader.__name__}")


def _weight_options(loader: Any) -> dict[str, Any]:
    if issubclass(loader, ModelMixin):
        return {"torch_dtype": torch.float32, "use_safetensors": True}
    if issubclass(loader, PreTrainedModel):
        return {"dtype": torch.float32, "use_safetensors": True}
    return {}
