"""Settings of the figures set and of the backbone trained on it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lisa_video.errors import UserError


@dataclass(frozen=True)
class FiguresConfig:
    """What to render."""

    clips: int = 4000
    """Number of clips."""
    frames: int = 16
    """Frames per clip."""
    fps: float = 10.0
    """Frames per second."""
    size: int = 64
    """Width and height in pixels."""
    mocap_share: float = 0.6
    """Share of the clips moved by motion capture; the rest moves procedurally."""
    held_out: list[str] = field(default_factory=lambda: ["dance_b", "run", "kick"])
    """Recordings kept for evaluation: never rendered into the training split."""
    seed: int = 0
    """Seed of every random choice."""
    workers: int = 2
    """Rendering processes."""

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 1 or self.size < 16:
            raise UserError("figures: clips and frames must be at least 1 and size at least 16")
        if not 0 <= self.mocap_share <= 1:
            raise UserError(f"figures.mocap_share={self.mocap_share}: must lie in [0, 1]")


@dataclass(frozen=True)
class VaeConfig:
    """The image autoencoder."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 96])
    """Width of each level; each level but the last halves the resolution."""
    latent_channels: int = 4
    """Channels of the latent."""
    steps: int = 1700
    """Optimizer steps."""
    batch_size: int = 12
    """Frames per step."""
    lr: float = 1.5e-3
    """Peak learning rate of AdamW; warm-up, then cosine to zero."""
    kl_weight: float = 1e-5
    """Weight of the KL term, averaged over latent elements, beside the mean squared error."""


@dataclass(frozen=True)
class UNetConfig:
    """The motion UNet and its text encoder, trained together."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128])
    """Width of each level."""
    layers_per_block: int = 1
    """Residual blocks per level of the encoder."""
    text_width: int = 128
    """Width of the text encoder and of the cross attention."""
    frames: int = 8
    """Frames per training clip."""
    image_steps: int = 1000
    """First steps, on single frames: appearance and captions are learned there."""
    video_steps: int = 2000
    """Further steps, on clips."""
    batch_size: int = 8
    """Clips per step; single frames come batch_size * frames at a time."""
    lr: float = 8e-4
    """Peak learning rate of AdamW; warm-up, then cosine to zero."""
    timestep_shift: float = 2.0
    """Above 1 draws timesteps towards high noise."""
    text_dropout: float = 0.1
    """Share of captions replaced by the empty one, for classifier-free guidance."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones saved."""


@dataclass(frozen=True)
class PretrainConfig:
    """Train the embedded AnimateDiff backbone on rendered figures, from nothing."""

    output: Path = Path("outputs/pretrain")
    """Folder of the run: rendered frames, checkpoints of each stage and the finished `backbone/`."""
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    seed: int = 0
    """Seed of initial weights, batches and noise."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints; a repeated command goes on from the last."""
    threads: int = 0
    """Torch threads; 0 takes torch's default."""


@dataclass(frozen=True)
class WanVaeConfig:
    """The causal video autoencoder: 1 + 4k frames become 1 + k latent frames."""

    base_width: int = 16
    """Width of the first level."""
    width_factors: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Width of each level in terms of the first; all but the last halve resolution and, from the
    second frame on, frame rate."""
    latent_channels: int = 16
    """Channels of the latent."""
    image_steps: int = 350
    """First steps, on single frames: detail is learned there."""
    video_steps: int = 350
    """Further steps, on clips."""
    images: int = 12
    """Single frames per step."""
    batch_size: int = 2
    """Clips per step."""
    frames: int = 13
    """Frames per clip: the VAE remembers up to three latent frames, and only then are all of its
    weights in use."""
    lr: float = 1.5e-3
    """Peak learning rate of AdamW on single frames; warm-up, then cosine to zero."""
    video_lr: float = 8e-4
    """The same on clips."""
    motion_weight: float = 8.0
    """How much more an error weighs where a pixel is far from its mean over the clip: without it,
    the frames of a latent frame become their mean."""
    kl_weight: float = 1e-5
    """Weight of the KL term, averaged over latent elements, beside the mean squared error."""

    def __post_init__(self) -> None:
        if len(self.width_factors) != 3:
            raise UserError(
                "vae.width_factors: the Wan VAE's 4 frames per latent frame need 3 levels"
            )
        _check_frames("vae", self.frames)


@dataclass(frozen=True)
class WanTransformerConfig:
    """The video transformer and its text encoder, trained together."""

    heads: int = 6
    """Attention heads."""
    head_width: int = 32
    """Width of each head."""
    layers: int = 8
    """Transformer blocks."""
    ffn_width: int = 768
    """Width inside of the feed-forward layers."""
    text_width: int = 128
    """Width of the text encoder."""
    text_tokens: list[int] = field(default_factory=lambda: [64, 64, 64, 512])
    """Lengths that captions are padded to; each step draws one. WanPipeline pads to 512."""
    frames: int = 13
    """Frames per training clip."""
    image_steps: int = 400
    """First steps, on single latent frames: appearance and captions are learned there."""
    video_steps: int = 1200
    """Further steps, on clips."""
    batch_size: int = 8
    """Clips per step; single latent frames come as many as make the same number of tokens."""
    lr: float = 1e-3
    """Peak learning rate of AdamW; warm-up, then cosine to zero."""
    timestep_shift: float = 3.0
    """Above 1 draws times towards high noise; the saved scheduler samples with the same shift."""
    text_dropout: float = 0.1
    """Share of captions replaced by the empty one, for classifier-free guidance."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones saved."""

    def __post_init__(self) -> None:
        _check_frames("transformer", self.frames)


def _check_frames(section: str, frames: int) -> None:
    if frames % 4 != 1:
        raise UserError(f"{section}.frames={frames}: the Wan VAE takes 1 + 4k frames")


@dataclass(frozen=True)
class PretrainWanConfig:
    """Train the embedded Wan backbone on rendered figures, from nothing."""

    output: Path = Path("outputs/pretrain_wan")
    """Folder of the run: rendered frames, checkpoints of each stage and the finished `backbone/`."""
    figures: FiguresConfig = field(default_factory=lambda: FiguresConfig(clips=3000, fps=16.0))
    vae: WanVaeConfig = field(default_factory=WanVaeConfig)
    transformer: WanTransformerConfig = field(default_factory=WanTransformerConfig)
    seed: int = 0
    """Seed of initial weights, batches and noise."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints; a repeated command goes on from the last."""
    threads: int = 0
    """Torch threads; 0 takes torch's default."""


@dataclass(frozen=True)
class DetectorConfig:
    """Train the keypoint network that scores generated figures."""

    output: Path = Path("outputs/detector")
    """Folder of the finished network; must not exist."""
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    rendered: Path = Path("outputs/pretrain")
    """Folder with the frames that `pretrain.py` rendered; they are rendered there if absent."""
    vae: Path | None = None
    """Backbone folder whose VAE degrades half of the frames, as generated ones are degraded."""
    steps: int = 2000
    """Optimizer steps."""
    batch_size: int = 48
    """Frames per step."""
    lr: float = 2e-3
    """Peak learning rate of AdamW; one cycle."""
    seed: int = 0
    """Seed of initial weights, batches and augmentation."""
    threads: int = 0
    """Torch threads; 0 takes torch's default."""


@dataclass(frozen=True)
class FiguresDatasetConfig:
    """Render figures with their true poses into a dataset, for training and the adherence probe."""

    output: Path = Path("outputs/figures")
    """Folder of the dataset; must be new or empty."""
    figures: FiguresConfig = field(default_factory=lambda: FiguresConfig(clips=400, size=128))
    """Clips of split "train"."""
    validation_clips: int = 24
    """Clips of split "validation", moved by the recordings in `figures.held_out`; 0 for none."""

    def __post_init__(self) -> None:
        if self.validation_clips < 0:
            raise UserError(f"validation_clips={self.validation_clips}: must be at least 0")
        if self.validation_clips and not self.figures.held_out:
            raise UserError(
                "figures.held_out is empty: name recordings for the validation clips, "
                "or set validation_clips to 0"
            )
