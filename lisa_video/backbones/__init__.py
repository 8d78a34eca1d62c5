"""The backbones that can be steered: one explicit table, each entry imported when asked for."""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

from lisa_video.errors import UserError

if TYPE_CHECKING:
    from lisa_video.backbones.animatediff import AnimateDiffBackbone

BACKBONES = {"animatediff": "lisa_video.backbones.animatediff:AnimateDiffBackbone"}


def load_backbone(kind: str, path: str | PathLike[str], **options: Any) -> AnimateDiffBackbone:
    """Load a backbone of `kind`, a key of `BACKBONES`, from a diffusers folder or hub name.

    `options` go to its `from_pretrained`. Raises UserError where the kind is unknown or nothing can
    be loaded from `path`.
    """
    if kind not in BACKBONES:
        raise UserError(f"unknown backbone '{kind}', known: {', '.join(sorted(BACKBONES))}")
    module, name = BACKBONES[kind].split(":")
    backbone: AnimateDiffBackbone = getattr(import_module(module), name).from_pretrained(
        path, **options
    )
    return backbone
