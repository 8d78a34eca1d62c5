"""The backbones that can be steered: one explicit table, each entry imported when asked for."""

from __future__ import annotations

import inspect
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

from lisa_video.errors import UserError

if TYPE_CHECKING:
    from lisa_video.backbones.base import VideoBackbone
    from lisa_video.side_networks.base import SideNetwork

BACKBONES = {
    "animatediff": "lisa_video.backbones.animatediff:AnimateDiffBackbone",
    "cogvideox": "lisa_video.backbones.cogvideox:CogVideoXBackbone",
    "wan": "lisa_video.backbones.wan:WanBackbone",
}


def backbone_class(kind: str) -> type[VideoBackbone]:
    """The class of a backbone of `kind`; UserError where that is no key of `BACKBONES`."""
    if kind not in BACKBONES:
        raise UserError(f"unknown backbone '{kind}', known: {', '.join(sorted(BACKBONES))}")
    module, name = BACKBONES[kind].split(":")
    found: type[VideoBackbone] = getattr(import_module(module), name)
    return found


def load_backbone(kind: str, path: str | PathLike[str], **options: Any) -> VideoBackbone:
    """Load a backbone of `kind`, a key of `BACKBONES`, from a diffusers folder or hub name.

    `options` go to its `from_pretrained`. Raises UserError where the kind is unknown, it takes no
    such option, or nothing can be loaded from `path`.
    """
    loader = backbone_class(kind).from_pretrained
    unknown = sorted(options.keys() - inspect.signature(loader).parameters.keys())
    if unknown:
        raise UserError(f"backbone.{unknown[0]}: a backbone of kind {kind} takes no such setting")
    return loader(path, **options)


def load_side_network(path: str | PathLike[str]) -> SideNetwork:
    """The side network saved in a folder, in float32 and eval mode.

    Raises UserError where the folder does not hold a loadable side network of a known backbone.
    """
    from lisa_video.loading import class_name, load_pretrained

    classes = {
        loader.__name__: loader
        for loader in (backbone_class(kind).side_network_class for kind in BACKBONES)
    }
    name = class_name(path)
    if name not in classes:
        raise UserError(f"{path}: holds a {name}, expected one of {', '.join(classes)}")
    side: SideNetwork = load_pretrained(classes[name], path)
    return side
