"""What a run looks at while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from lisa_video.config_checks import at_least


@dataclass(frozen=True)
class ProbeConfig:
    """The adherence probe: losses on held-out clips with true, shuffled and no poses."""

    every: int = 500
    """Steps between probes; 0 never probes."""
    clips: int = 16
    """Held-out clips: the first ones of the validation split."""
    draws: int = 4
    """Noise levels per clip, the same at every probe."""
    seed: int = 0
    """Seed of windows, noise, timesteps and shuffling; the same for runs to be compared."""

    def __post_init__(self) -> None:
        at_least(0, "probe", every=self.every)
        at_least(2, "probe", clips=self.clips)
        at_least(1, "probe", draws=self.draws)
