"""Share a run: check it, gather what others need, write the card.

Shape legend: F frames, H W pixels.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from diffusers import ControlNetModel
from PIL import Image

from lisa_video.backbones import load_side_network
from lisa_video.errors import UserError
from lisa_video.gallery import contact_sheet
from lisa_video.sharing.card import CardFacts, model_card
from lisa_video.sharing.config import ShareConfig
from lisa_video.side_networks.base import SideNetwork
from lisa_video.side_networks.controlnet import exported
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.run_folder import VIDEOS_FOLDER
from lisa_video.training.run_record import RunSummary, read_record
from lisa_video.video import read_video

_SHEET = "samples.png"
_SHEET_SIDE = 128  # pixels


def check_share(config: ShareConfig) -> None:
    """Raises UserError where the run cannot be shared as asked; writes nothing."""
    if config.out.exists():
        raise UserError(f"{config.out}: exists already; give another name or remove it first")
    if not config.out.absolute().parent.is_dir():
        raise UserError(f"{config.out}: its folder does not exist; create it first")
    run = read_record(config.run)
    side = _finished_network(config.run, run)
    if config.controlnet:
        _as_controlnet(side)


def share(config: ShareConfig) -> Path:
    """Write the folder, whole or not at all, and return it; errors as in `check_share`."""
    run = read_record(config.run)
    side = _finished_network(config.run, run)
    with tempfile.TemporaryDirectory(
        dir=config.out.absolute().parent, prefix=f".{config.out.name}."
    ) as name:
        folder = Path(name) / "shared"
        side.save_pretrained(folder)
        if config.controlnet:
            _as_controlnet(side).save_pretrained(folder / "controlnet")
        has_lora = _copy_lora(config.run, folder)
        samples = _copy_samples(config, folder)
        facts = CardFacts(
            title=config.title or config.run.absolute().name,
            license=config.license,
            backbone=config.backbone or _public_name(run.backbone.get("path", "")),
            samples=samples,
            sheet=_SHEET if samples else None,
            controlnet=config.controlnet,
            lora=has_lora,
        )
        (folder / "README.md").write_text(model_card(run, facts), encoding="utf-8")
        os.replace(folder, config.out)
    return config.out


def _finished_network(folder: Path, run: RunSummary) -> SideNetwork:
    """The side network of a finished run, checked against its record."""
    path = folder / "side_network"
    if not path.is_dir():
        raise UserError(
            f"{folder}: has no side_network yet, its run is {run.status} at step {run.step} of "
            f"{run.steps}; finish it first"
        )
    for file in path.iterdir():
        _refuse_link(folder, file)
    side = load_side_network(path)
    if side.config.backbone_fingerprint != run.backbone.get("fingerprint"):
        raise UserError(f"{path}: is of another backbone than run.json says")
    return side


def _as_controlnet(side: SideNetwork) -> ControlNetModel:
    if not isinstance(side, UNetSideNetwork):
        raise UserError("controlnet=true: is for side networks of AnimateDiff")
    return exported(side)


def _copy_lora(run: Path, folder: Path) -> bool:
    """Take the adapters of the backbone along, where the run has any."""
    source = run / "lora"
    if not source.is_dir():
        return False
    (folder / "lora").mkdir()
    for file in sorted(source.iterdir()):
        _refuse_link(run, file)
        if file.suffix in (".safetensors", ".json"):
            shutil.copyfile(file, folder / "lora" / file.name)
    return True


def _copy_samples(config: ShareConfig, folder: Path) -> list[str]:
    """Take videos of the newest validation along, and draw a sheet of them; returns their names."""
    validations = sorted((config.run / VIDEOS_FOLDER).glob("step_" + "[0-9]" * 8))
    videos = sorted(validations[-1].glob("*.mp4"))[: config.samples] if validations else []
    if not videos:
        return []
    (folder / "samples").mkdir()
    rows: list[tuple[str, np.ndarray]] = []
    for video in videos:
        _refuse_link(config.run, video)
        shutil.copyfile(video, folder / "samples" / video.name)
        rows.append((video.stem, read_video(video).frames))
    sheet = contact_sheet(rows, frames=4, side=_SHEET_SIDE)
    Image.fromarray(sheet).save(folder / _SHEET, optimize=True)
    return [video.name for video in videos]


def _public_name(backbone: str) -> str:
    """Hub name or, of a folder, its name alone."""
    return (
        Path(backbone).name if Path(backbone).exists() or Path(backbone).is_absolute() else backbone
    )


def _refuse_link(folder: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: is a link that leads out of the folder of the run")
