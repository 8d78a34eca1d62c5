"""FVD protocols that papers use, by name. Their values differ: each result names its preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lisa_video.errors import UserError
from lisa_video.metrics.preprocessing import Resize
from lisa_video.metrics.sampling import ClipSampling, Start


@dataclass(frozen=True)
class FvdPreset:
    """One way to compute FVD."""

    name: str
    resize: Resize
    """How frames become 224x224."""
    pool_frames: int
    """Frames of I3D's average pool (T', 7, 7)."""
    ddof: int
    """Covariances are divided by N - ddof."""
    sampling: ClipSampling
    """Clips of generated videos."""
    real_start: Start
    """Where clips of real videos lie; all else is as for generated ones."""
    source: str
    """Where the protocol is written down."""

    @property
    def real_sampling(self) -> ClipSampling:
        """Clips of real videos."""
        return replace(self.sampling, start=self.real_start)


PRESETS: Mapping[str, FvdPreset] = {
    preset.name: preset
    for preset in (
        FvdPreset(
            "stylegan-v",
            resize="bilinear",
            pool_frames=2,
            ddof=0,
            sampling=ClipSampling(),
            real_start="random",
            source="universome/stylegan-v src/metrics/frechet_video_distance.py (2048 clips each)",
        ),
        FvdPreset(
            "original",
            resize="bilinear_tf1",
            pool_frames=2,
            ddof=1,
            sampling=ClipSampling(),
            real_start="first",
            source="google-research frechet_video_distance/frechet_video_distance.py",
        ),
        FvdPreset(
            "junyaohu",
            resize="short_side_crop",
            pool_frames=2,
            ddof=1,
            sampling=ClipSampling(),
            real_start="first",
            source="JunyaoHu/common_metrics_on_video_quality fvd/styleganv/fvd.py",
        ),
        FvdPreset(
            "disco",
            resize="bicubic",
            pool_frames=1,
            ddof=1,
            sampling=ClipSampling(clips=0, step=1),
            real_start="first",
            source="Wangt-CN/DisCo tool/metrics/metric_center.py, tool/video/gen_gifs_for_fvd.py",
        ),
    )
}


def fvd_preset(name: str) -> FvdPreset:
    """The preset called `name`; raises UserError, which lists the known ones."""
    if name not in PRESETS:
        raise UserError(f"unknown FVD preset '{name}', known: {', '.join(PRESETS)}")
    return PRESETS[name]
