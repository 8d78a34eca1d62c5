"""The clips of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.condition_config import ConditionKind
from lisa_video.config_checks import at_least, positive
from lisa_video.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Clips with poses, and how they are cut and batched."""

    root: Path = Path()
    """Folder of the dataset, with its manifest.jsonl; not read where `shards` is given."""
    shards: str | None = None
    """Folder or URL, such as s3://bucket/set, of shards that `pipelines/pack_shards.py` made of the
    dataset, with videos or, made with these settings, with encodings."""
    condition: ConditionKind = "pose"
    """What the side network is steered by: pose (all keypoints of the set), body, upper_body,
    lower_body or hands alone, or edges: Canny's, drawn from the video, which is then opened even
    where its latents come from a cache. A side network remembers it."""
    split: str = "train"
    """Split that is trained on."""
    validation_split: str = "validation"
    """Split of the adherence probe."""
    frames: int = 8
    """Frames per training clip; 1 + 4k for Wan, 1 + 8k for CogVideoX."""
    stride: int = 1
    """Video frames from one training frame to the next."""
    max_stride: int | None = None
    """Where given, each window has a stride from `stride` to this, as far as its clip is long."""
    fps: float | None = None
    """Where given, frames are taken by time, and strides count frames of this many a second: clips
    of 24, 25, 30 and 60 fps then move alike. Give the rate that the backbone was trained at."""
    size: tuple[int, int] = (64, 64)
    """Width and height in pixels."""
    buckets: list[tuple[int, int, int]] = field(default_factory=list)
    """Frames, width and height of several shapes, [[81, 832, 480], [49, 480, 832]]: each clip is
    trained in the one that suits it best, each step in one. `frames` and `size` are then those of
    held-out clips alone. Empty: one shape, of `frames` and `size`."""
    views: int = 0
    """0: new windows, cuts and flips in every epoch; n: each clip has n of them that come back,
    so that what is made from them can be kept."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    batch_size: int = 8
    """Clips per process and forward pass."""
    workers: int = 0
    """Processes that read ahead; 0 reads in the training process."""
    cache_in_memory: bool = False
    """Keep decoded clips in memory, in each reading process; for sets that fit."""
    cache_encodings: bool = False
    """Keep the latents of every window and the text states of every caption in memory, too."""
    cache: Path | None = None
    """Folder of latents and text states that `pipelines/cache.py` made with these settings; VAE and
    text encoder are then not asked, and no video is opened. Needs `views`."""
    encode_frames_at_once: int | None = None
    """AnimateDiff: frames that its VAE, which sees single images, takes at once: fewer need less
    memory and give the same latents up to rounding. null: 16."""
    check_clips: bool = True
    """Open every clip before the first step. Switch it off for a large set that has been validated:
    a clip that cannot be read then stops the run when its turn comes."""

    def __post_init__(self) -> None:
        at_least(1, "data", frames=self.frames, stride=self.stride, batch_size=self.batch_size)
        at_least(0, "data", workers=self.workers, views=self.views)
        if self.encode_frames_at_once is not None:
            at_least(1, "data", encode_frames_at_once=self.encode_frames_at_once)
        if self.max_stride is not None:
            at_least(self.stride, "data", max_stride=self.max_stride)
        if self.fps is not None:
            positive("data", fps=self.fps)
        if self.cache is not None and self.shards is not None:
            raise UserError("data: give either cache or shards; a cache can be packed into shards")
        if self.shards is not None and self.buckets:
            raise UserError("data.buckets: packed sets are trained in one shape; leave it empty")
        if self.cache is not None and not self.views:
            raise UserError(
                "data.cache: what changes in every epoch cannot be kept; set data.views to 1 or "
                "more, the number of windows that each clip has"
            )
        if min(self.size) < 1:
            raise UserError(f"data.size={list(self.size)}: width and height must be at least 1")
        for place, bucket in enumerate(self.buckets):
            if min(bucket) < 1:
                raise UserError(
                    f"data.buckets[{place}]={list(bucket)}: frames, width and height must be at "
                    "least 1"
                )
            if bucket in self.buckets[:place]:
                raise UserError(f"data.buckets[{place}]={list(bucket)}: is listed twice")
