"""The backbones that can be steered: one explicit table, each entry imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lisa_video.errors import UserError

if TYPE_CHECKING:
    from lisa_video.backbones.animatediff import AnimateDiffBackbone

BACKBONES = {"animatediff": "lisa_video.backbones.animatediff:AnimateDiffBackbone"}


def load_backbone(kind: str, path: str, **options: Any) -> AnimateDiffBackbone:
    """Load the backbone `kind` from a diffusers folder or hub name; `options` as its `from_pretrained`.

    Raises:
        UserError: unknown kind, or nothing loadable at `path`.
    """
    if kind not in BACKBONES:
        raise UserError(f"unknown backbone '{kind}'; known: {', '.join(sorted(BACKBONES))}")
    module, name = BACKBONES[kind].split(":")
    backbone: AnimateDiffBackbone = getattr(import_module(module), name).from_pretrained(
        path, **options
    )
    return backbone
