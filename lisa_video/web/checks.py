"""Whether the web demo can be served as configured."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from lisa_video.backbones import load_side_network
from lisa_video.detectors import check_detector
from lisa_video.errors import UserError
from lisa_video.training.setup import open_backbone
from lisa_video.web.config import ModelConfig, WebConfig


def check_web(config: WebConfig) -> None:
    """Raises UserError where Gradio is missing, a checkpoint is not for its backbone, or a sample or a
    detector is not there."""
    if find_spec("gradio") is None:
        raise UserError("the web demo needs Gradio: pip install 'lisa_video[web]'")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device here; use cpu or auto")
    scorers = [model.scorer for model in config.models.values() if model.scorer]
    for detector in (*config.detectors, *scorers):
        check_detector(detector)
    for name, path in config.samples.items():
        if not Path(path).is_file():
            raise UserError(f"samples '{name}': {path}: no such file")
    for name, model in config.models.items():
        _check_model(name, model)


def _check_model(name: str, model: ModelConfig) -> None:
    try:
        backbone = open_backbone(model.backbone, getattr(torch, model.dtype))
        for folder in model.folders:
            load_side_network(folder).check_backbone(backbone)
    except UserError as error:
        raise UserError(f"models '{name}': {error}") from None
