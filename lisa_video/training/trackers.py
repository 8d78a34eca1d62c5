"""Who else gets what a run logs: TensorBoard and Weights & Biases.

Shapes: F frames, H W pixels.
"""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lisa_video.cli import config_to_dict
from lisa_video.errors import UserError
from lisa_video.loading import first_line
from lisa_video.reports import replace_text
from lisa_video.training.config import TrackerName, TrainConfig

LogValues = Mapping[str, float | list[float]]

WANDB_ID_FILE = "wandb_id.txt"
_GIF_FRAMES = 32  # a longer video is shown with frames left out


@dataclass(frozen=True, eq=False)
class LabelledVideo:
    """A video for people, and the file that it is in."""

    name: str
    """Of the clip, unique in the run."""
    path: Path
    """An mp4."""
    frames: NDArray[np.uint8]
    """(F, H, W, 3)."""
    fps: float


class Tracker(Protocol):
    """Takes what is logged, in the main process."""

    def write(self, step: int, values: LogValues) -> None:
        """Take the values of a step, each a number or a list of them."""

    def show(self, step: int, videos: Sequence[LabelledVideo]) -> None:
        """Take the validation videos of a step."""

    def close(self) -> None:
        """Write what is still held back."""


def check_trackers(config: TrainConfig) -> None:
    """Raise UserError where a tracker is not installed."""
    if "wandb" in config.trackers and find_spec("wandb") is None:
        raise UserError(
            "trackers: wandb is not installed; pip install 'lisa_video[wandb]', or leave it out"
        )


def start_trackers(config: TrainConfig, step: int) -> list[Tracker]:
    """The trackers of a run that goes on after `step`; UserError where one does not start."""
    makers: dict[TrackerName, Callable[[TrainConfig, int], Tracker]] = {
        "tensorboard": TensorBoardTracker,
        "wandb": WandbTracker,
    }
    return [makers[name](config, step) for name in config.trackers]


class TensorBoardTracker:
    """Scalars, and videos as moving pictures, in `<output>/tensorboard`; what an interrupted run
    wrote of later steps is hidden."""

    def __init__(self, config: TrainConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(config.output / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: LogValues) -> None:
        for name, value in _scalars(values):
            self.board.add_scalar(name, value, step)
        self.board.flush()

    def show(self, step: int, videos: Sequence[LabelledVideo]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer: Any = self.board.file_writer
        for video in videos:
            height, width = video.frames.shape[1:3]
            # TensorBoard hands the picture to the browser as it is, and that plays it.
            picture = Summary.Image(
                height=height,
                width=width,
                colorspace=3,
                encoded_image_string=animated_gif(video.frames, video.fps),
            )
            value = Summary.Value(tag=f"validation/{video.name}", image=picture)
            writer.add_summary(Summary(value=[value]), step)
        self.board.flush()

    def close(self) -> None:
        self.board.close()


class WandbTracker:
    """Weights & Biases through accelerate; a run that goes on keeps its id, and the step is a value
    of its own, so that steps which are done again are not dropped."""

    def __init__(self, config: TrainConfig, step: int) -> None:
        import wandb
        from accelerate.tracking import WandBTracker as AccelerateTracker

        settings = config.wandb
        self.tracker = AccelerateTracker(
            settings.project,
            entity=settings.entity,
            name=settings.name or config.output.absolute().name,
            id=wandb_id(config.output),
            resume="allow",
            dir=str(config.output),
            settings=wandb.Settings(console="off"),
        )
        try:
            self.tracker.start()
        except wandb.errors.Error as error:
            raise UserError(
                f"trackers: wandb does not start: {first_line(error)}; run 'wandb login', or set "
                "WANDB_MODE=offline"
            ) from None
        self.tracker.store_init_configuration(config_to_dict(config))
        self.tracker.tracker.define_metric("*", step_metric="step")

    def write(self, step: int, values: LogValues) -> None:
        # Its charts have no place for what is not finite.
        finite = {name: value for name, value in _scalars(values) if math.isfinite(value)}
        self.tracker.log({"step": step, **finite})

    def show(self, step: int, videos: Sequence[LabelledVideo]) -> None:
        import wandb

        media: dict[str, Any] = {
            f"validation/{video.name}": wandb.Video(str(video.path), format="mp4")
            for video in videos
        }
        if media:
            self.tracker.log({"step": step, **media})

    def close(self) -> None:
        self.tracker.finish()


def wandb_id(output: Path) -> str:
    """The id of the run in `output`; a new one is written there, for later."""
    path = output / WANDB_ID_FILE
    if not path.is_file():
        replace_text(path, secrets.token_hex(8) + "\n")
    return path.read_text(encoding="utf-8").strip()


def animated_gif(frames: NDArray[np.uint8], fps: float) -> bytes:
    """Frames (F, H, W, 3) as a GIF that repeats, of at most 32 of them and as long as all."""
    stride = math.ceil(len(frames) / _GIF_FRAMES)
    first, *others = (Image.fromarray(frame) for frame in frames[::stride])
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=1000 * stride / fps,
        loop=0,
    )
    return buffer.getvalue()


def _scalars(values: LogValues) -> Iterator[tuple[str, float]]:
    """The elements of a list as name/00, name/01, ..."""
    for name, value in values.items():
        if isinstance(value, list):
            yield from ((f"{name}/{index:02d}", element) for index, element in enumerate(value))
        else:
            yield name, value
