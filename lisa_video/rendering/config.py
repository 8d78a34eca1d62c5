"""Settings of the rendering job. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lisa_video.errors import UserError
from lisa_video.generation_config import ClipsConfig, ControlConfig, GenerateConfig, listed_folders

DRIVER, SKELETON = "driver", "skeleton"


@dataclass(frozen=True, kw_only=True)
class RenderConfig(ClipsConfig):
    """Render a driver, its skeleton and what each checkpoint makes of it, side by side. Of
    `control.weights` the checkpoints of as many side networks take notice."""

    side_networks: Mapping[str, str | list[str] | None]
    """Label of each checkpoint -> folder of its side network, or of several that act together, as in
    generation; null shows the backbone alone, from the same noise."""
    prompts: tuple[str, ...]
    """What the videos show; each has a row of its own."""
    output: Path
    """The video (.mp4 or .gif); must not exist. Its settings (.yaml) and figures (.json) are kept
    beside it. An mp4 keeps the sound of the driving video."""
    loras: Mapping[str, Path] = field(default_factory=dict)
    """Of checkpoints that were trained with adapters of the backbone: label -> folder of them."""
    sheet: Path | None = None
    """Picture (.png) with moments of all clips, in addition; must not exist."""
    video: Path | None = None
    """Where the driver is a pose file: the video that it was made of, to be shown and heard."""
    overlay: str | None = None
    """Pose detector that looks at the generated frames, whose joints are drawn over them beside those
    asked for, with the PCK@0.1 of each frame; null draws none."""
    side: int = 192
    """Height of each panel in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.side_networks.values()):
            raise UserError("side_networks: give at least one label with a folder")
        for label in self.side_networks:
            if not label.strip() or label in (DRIVER, SKELETON):
                raise UserError(f"side_networks: {label!r} cannot be the label of a checkpoint")
        for label in self.loras:
            if not self.side_networks.get(label):
                raise UserError(f"loras: '{label}' is no checkpoint of side_networks")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise UserError("prompts: give at least one, and none that is empty")
        if self.output.suffix not in (".mp4", ".gif"):
            raise UserError(f"output={self.output}: the name has to end in .mp4 or .gif")
        if self.sheet is not None and self.sheet.suffix != ".png":
            raise UserError(f"sheet={self.sheet}: the name has to end in .png")
        if self.video is not None and self.driving.poses is None:
            raise UserError(f"video={self.video}: goes with driving.poses; give one video only")
        if not 16 <= self.side <= 2160:
            raise UserError(f"side={self.side}: must lie between 16 and 2160")
        weights, counts = self.control.weights, map(len, map(self.folders, self.side_networks))
        if weights is not None and len(weights) not in counts:
            raise UserError(
                f"control.weights={weights}: no checkpoint has {len(weights)} side networks"
            )

    def folders(self, label: str) -> list[str]:
        """Of all side networks of a checkpoint; none where the backbone is alone."""
        return listed_folders(self.side_networks[label])

    @property
    def driving_video(self) -> Path | None:
        """The video to show and to hear, where there is one."""
        return self.driving.video or self.video

    def generation(self, label: str, prompt: str) -> GenerateConfig:
        """How one clip is generated: as by the generation job."""
        folders = self.folders(label)
        alone = not folders  # Then it runs with any checkpoint, at scale 0.
        folders = folders or next(filter(None, map(self.folders, self.side_networks)))
        control = ControlConfig(scale=0) if alone else self.control
        if control.weights is not None and len(control.weights) != len(folders):
            control = replace(control, weights=None)
        return GenerateConfig(
            **self.shared() | {"control": control},
            side_network=folders,
            lora=self.loras.get(label),
            prompt=prompt,
            output=self.output.with_suffix(".mp4"),
        )
