"""Settings of the job that finds poses in videos. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Literal

from lisa_video.errors import UserError

CAPTION_FIELDS = ("stem", "folder", "path")


@dataclass(frozen=True)
class ShotsConfig:
    """Where a video of a folder is cut into shots, by PySceneDetect's AdaptiveDetector."""

    detect: bool = True
    """Look for cuts; false takes every video for one shot."""
    threshold: float = 3.0
    """A cut changes the picture this many times as much as the frames around it do."""
    min_change: float = 15.0
    """It also changes hue, saturation and brightness by this much on average, of 255."""


@dataclass(frozen=True)
class ClipsConfig:
    """The clips that shots are split into."""

    min_frames: int = 16
    """Shorter shots are skipped."""
    max_frames: int = 256
    """Longer shots are split into equal parts, none longer."""
    min_side: int = 64
    """Pixels of the shorter side, below which a video is skipped."""
    crf: int = 12
    """Quality of clips that are encoded anew, 1 (finest) to 51."""


@dataclass(frozen=True)
class PeopleConfig:
    """Who is kept of a clip."""

    keep: int = 1
    """Most people of a clip, those with the most size x confidence x duration first."""
    max_gap: int = 12
    """Frames for which a person may be lost and still be taken for the same."""
    min_height: float = 0.15
    """Median height of a person's joints, as a share of the picture's height."""
    min_confidence: float = 0.3
    """Mean confidence of the joints of the body, in frames where the person is found."""
    min_presence: float = 0.5
    """Share of the clip's frames in which the person is found."""


@dataclass(frozen=True)
class SmoothingConfig:
    """How keypoints are smoothed over time: a One-Euro filter, run forwards and backwards."""

    min_cutoff: float = 1.5
    """Hz, for joints at rest; 0 leaves keypoints as they were detected."""
    beta: float = 5.0
    """Hz added for each body height per second that a joint moves."""
    max_gap: int = 4
    """Frames without a joint that are filled between two with it, at half their confidence."""

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "beta", "max_gap"):
            if getattr(self, name) < 0:
                raise UserError(f"smoothing.{name}={getattr(self, name)}: must be at least 0")


@dataclass(frozen=True)
class ExtractPosesConfig:
    """Find the poses in one video, or turn a folder of videos into a dataset."""

    source: Path
    """Video, or folder whose videos are looked for in all its folders; may come without a flag."""
    out: Path
    """Pose file to write (.npz) for a video, which must not exist; for a folder the dataset's
    folder, where an interrupted run goes on."""
    detector: str = "blazepose"
    """Pose detector; an unknown name lists the known ones."""
    weights: Path | None = None
    """Folder with the detector's weights; null takes the shipped ones, or fetches them once."""
    preview: Path | None = None
    """Video to write of a single source beside its skeletons (.mp4); must not exist."""
    skeleton: Literal["openpose18", "openpose18_hands", "openpose18_hands_face"] | None = None
    """Keypoints to keep; null keeps all that the detector finds."""
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    """Cuts; this and what follows is for folders."""
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    """Lengths and sizes."""
    people: PeopleConfig = field(default_factory=PeopleConfig)
    """Who is kept."""
    smoothing: SmoothingConfig = field(default_factory=SmoothingConfig)
    """Keypoints over time."""
    caption: str = ""
    """Caption of videos that have none of their own beside them, NAME.txt or NAME.json with the key
    "caption"; may hold {stem}, {folder} and {path} of the video."""
    validation_share: float = 0.0
    """Share of the videos, drawn by their paths, whose clips get the split "validation"."""
    engine: Literal["local", "ray"] = "local"
    """Where the work runs: in processes of this machine, or on Ray (RAY_ADDRESS names a cluster,
    whose machines see all files under the same paths)."""
    workers: int = 0
    """Videos at a time; 0 takes one for each core, of this machine or of the cluster."""

    def __post_init__(self) -> None:
        if self.preview is not None and self.preview.suffix != ".mp4":
            raise UserError(f"preview={self.preview}: the preview ends in .mp4")
        for name, least in (
            ("clips.min_frames", 1),
            ("clips.min_side", 1),
            ("clips.crf", 1),
            ("people.keep", 1),
            ("people.max_gap", 0),
            ("workers", 0),
        ):
            if self._value(name) < least:
                raise UserError(f"{name}={self._value(name)}: must be at least {least}")
        for name in ("shots.threshold", "shots.min_change"):
            if self._value(name) <= 0:
                raise UserError(f"{name}={self._value(name)}: must be above 0")
        for name in (
            "people.min_height",
            "people.min_confidence",
            "people.min_presence",
            "validation_share",
        ):
            if not 0 <= self._value(name) <= 1:
                raise UserError(f"{name}={self._value(name)}: must be from 0 to 1")
        if self.clips.crf > 51:
            raise UserError(f"clips.crf={self.clips.crf}: must be at most 51")
        if self.clips.max_frames < 2 * self.clips.min_frames:
            raise UserError(
                f"clips.max_frames={self.clips.max_frames}: must be at least twice "
                f"clips.min_frames={self.clips.min_frames}, so that every part is long enough"
            )
        check_template(self.caption)

    def _value(self, name: str) -> float:
        value: object = self
        for part in name.split("."):
            value = getattr(value, part)
        assert isinstance(value, int | float), name
        return value


def check_template(template: str) -> None:
    """Raises UserError where a caption's template is more than text with known {fields}."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"caption={template!r}: {error}; write {{{{ for a brace") from None
    for _, name, form, conversion in parts:
        if name is not None and (name not in CAPTION_FIELDS or form or conversion):
            known = ", ".join(f"{{{field}}}" for field in CAPTION_FIELDS)
            raise UserError(f"caption={template!r}: unknown field {{{name}}}, known: {known}")
