"""Settings of the sharing job. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lisa_video.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ShareConfig:
    """Turn a finished training run into a folder that loads on another machine, with a model card."""

    run: Path
    """Folder of the run; may come without a flag."""
    out: Path
    """Folder to write; must not exist."""
    title: str | None = None
    """Heading of the card; null: the name of the run's folder."""
    backbone: str | None = None
    """Hub name of the backbone, where the run had it in a folder of its machine."""
    license: str = "apache-2.0"
    """Licence of the weights, as the hub spells it."""
    samples: int = 4
    """Held-out clips of the newest validation that are taken along."""
    controlnet: bool = False
    """Also as a ControlNetModel of plain diffusers, in the folder controlnet; for an AnimateDiff side
    network without motion modules."""

    def __post_init__(self) -> None:
        if self.backbone is not None and not HUB_NAME.fullmatch(self.backbone):
            raise UserError(f"backbone={self.backbone}: a hub name reads user/name")
        if not re.fullmatch(r"[a-z0-9.+-]+", self.license):
            raise UserError(f"license={self.license}: the hub spells it as in apache-2.0 or mit")
        if self.samples < 0:
            raise UserError(f"samples={self.samples}: must be at least 0")
