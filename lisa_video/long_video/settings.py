"""Settings of long video. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lisa_video.config_checks import at_least
from lisa_video.errors import UserError


@dataclass(frozen=True)
class WindowSettings:
    """Windows in which a long video is denoised, each as one clip of the backbone."""

    frames: int = 16
    """Video frames of a window: best the length that the backbone was trained at; 1 + 4k for Wan, 1
    + 8k for CogVideoX. A video that is not longer is made at once."""
    overlap: int = 4
    """Video frames that neighbouring windows share at least, and over which they are blended."""
    noise: Literal["independent", "freenoise"] = "independent"
    """Noise to start from. freenoise (Qiu et al. 2023): beyond the first window that of earlier
    frames, shuffled, which keeps people and places alike over the whole video."""

    def __post_init__(self) -> None:
        at_least(1, "window", frames=self.frames)
        at_least(0, "window", overlap=self.overlap)
        if self.overlap >= self.frames:
            raise UserError(
                f"window.overlap={self.overlap}: must be below window.frames={self.frames}"
            )


@dataclass(frozen=True)
class PromptFrom:
    """A prompt that holds from some frame on."""

    start: int
    """First frame of the result, counted from 0."""
    prompt: str
    """What the video shows from there on."""

    def __post_init__(self) -> None:
        at_least(0, "prompts", start=self.start)
        if not self.prompt:
            raise UserError(f"prompts: the one from frame {self.start} is empty")


@dataclass(frozen=True)
class PromptTravel:
    """Prompts for ranges of frames, whose text states are interpolated at the borders."""

    prompts: tuple[PromptFrom, ...]
    """In the order of their frames; the first starts at 0."""
    blend: int = 8
    """Frames around each border over which one prompt becomes the next; 0 switches at once."""

    def __post_init__(self) -> None:
        at_least(0, "prompts", blend=self.blend)
        starts = [each.start for each in self.prompts]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise UserError(
                f"prompts: they start at frames {starts}; the first must start at 0, each later "
                "one after the one before"
            )
