"""`from_pretrained` of diffusers and transformers, for users: safe weights, errors in one line.

Where torch's default device is meta (`with torch.device("meta")`), models are built from their
configurations alone, without weights, and tokenizers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin, SchedulerMixin
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lisa_video.errors import UserError

ComponentTable = Mapping[str, tuple[str, tuple[str, ...] | None]]
"""Per component of a pipeline folder: the library, and the classes that model_index.json may name
(None: any scheduler)."""

LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError)


def load_pretrained(
    loader: Any, path: str | PathLike[str], subfolder: str = "", **options: Any
) -> Any:
    """Load an object of class `loader` from a folder or hub name; weights come in float32.

    Weights are read from safetensors only, and on the meta device not at all. `options` go to
    `from_pretrained`. Raises UserError where nothing is there, it is of another class, or it cannot
    be read.
    """
    where = Path(path) / subfolder
    check_source(path)
    try:
        with libraries_silent():
            if issubclass(loader, ConfigMixin):
                _check_class(loader, path, subfolder, options)
            if on_meta():
                return _from_configuration(loader, path, subfolder, options)
            return loader.from_pretrained(
                fspath(path), subfolder=subfolder, **_weight_options(loader), **options
            )
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise UserError(f"{where}: not a loadable {loader.__name__}: {first_line(error)}") from None


class _AnyModel(ModelMixin, ConfigMixin):
    """Reads the configuration of any saved model."""


def class_name(path: str | PathLike[str], **options: Any) -> str:
    """The class that the configuration of a saved model names.

    `options` go to `load_config`. Raises UserError where there is no configuration.
    """
    check_source(path)
    try:
        with libraries_silent():
            config = _AnyModel.load_config(fspath(path), **options)
    except LOADING_ERRORS as error:
        raise UserError(f"{path}: no saved model there: {first_line(error)}") from None
    return str(config.get("_class_name", "model without a class name"))


def model_index(path: str | PathLike[str], hub: Mapping[str, Any]) -> dict[str, Any]:
    """What model_index.json says; UserError where there is none."""
    check_source(path)
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise UserError(f"{path}: not a diffusers checkpoint, model_index.json is missing")
    try:
        with libraries_silent():
            return dict(DiffusionPipeline.load_config(fspath(path), **hub))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no checkpoint there: {first_line(error)}") from None


def component_class(
    path: str | PathLike[str],
    name: str,
    entry: list[str] | None,
    library: str,
    classes: tuple[str, ...] | None,
) -> Any:
    """The class of a component, from its entry in model_index.json; UserError unless it is one of
    these classes and there."""
    if not entry or None in entry:
        raise UserError(f"{path}: model_index.json has no {name}")
    class_name = entry[1]
    modules = {"diffusers": diffusers, "transformers": transformers}
    loader = getattr(modules[library], class_name, None) if entry[0] == library else None
    fits = class_name in classes if classes else _is_scheduler(loader)
    if loader is None or not fits:
        expected = " or ".join(classes) if classes else "a diffusers scheduler"
        raise UserError(f"{path}: {name} is {entry[0]}.{class_name}, expected {expected}")
    absent = Path(path).is_dir() and not (Path(path) / name).is_dir()
    if absent and not (on_meta() and issubclass(loader, PreTrainedTokenizerBase)):
        raise UserError(f"{path}: folder {name}/ is missing")
    return loader


def load_component(
    loader: Any, path: str | PathLike[str], name: str, hub: Mapping[str, Any]
) -> Any:
    """One part of a checkpoint; `hub` holds options of `from_pretrained`. Errors as
    `load_pretrained`."""
    if on_meta() and issubclass(loader, PreTrainedTokenizerBase):
        return None
    return load_pretrained(loader, path, subfolder=name, **hub)


def _is_scheduler(loader: object) -> bool:
    return isinstance(loader, type) and issubclass(loader, SchedulerMixin)


def check_source(path: str | PathLike[str]) -> None:
    """Raise UserError where `path` is no folder and no hub name either, without asking the hub."""
    folder = Path(path)
    if not folder.is_dir() and (folder.is_absolute() or fspath(path).count("/") != 1):
        raise UserError(f"{path}: no such folder, and no hub name of the form owner/name")


def cast(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Cast in place, but for the parts that a diffusers model keeps in float32."""
    if dtype is None:
        return
    kept = getattr(module, "_keep_in_fp32_modules", None) or []
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not any(part in name.split(".") for part in kept):
            tensor.data = tensor.data.to(dtype)


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


def on_meta() -> bool:
    """Whether models are built without weights."""
    return torch.get_default_device().type == "meta"


def _from_configuration(
    loader: Any, path: str | PathLike[str], subfolder: str, options: dict[str, Any]
) -> Any:
    """A model without weights; a scheduler, which has none, as ever, its tables on the CPU."""
    where = {"subfolder": subfolder, **options}
    if issubclass(loader, PreTrainedModel):
        return loader(loader.config_class.from_pretrained(fspath(path), **where))
    if issubclass(loader, ModelMixin):
        return loader.from_config(loader.load_config(fspath(path), **where))
    with torch.device("cpu"):
        return loader.from_pretrained(fspath(path), **where)


def _weight_options(loader: Any) -> dict[str, Any]:
    if issubclass(loader, ModelMixin):
        return {"torch_dtype": torch.float32, "use_safetensors": True}
    if issubclass(loader, PreTrainedModel):
        return {"dtype": torch.float32, "use_safetensors": True}
    return {}
