"""How fast a run goes, how long it waits for clips, and how much memory it has needed."""

from __future__ import annotations

import torch

from lisa_video.hardware import peak_memory_mb


class Pace:
    """Counts what `processes` processes train on between two lines of the log, from this one."""

    def __init__(self, device: torch.device, processes: int = 1) -> None:
        self.device, self.processes = device, processes
        self._restart()

    def _restart(self) -> None:
        self.clips = self.frames = 0
        self.seconds = self.waited = 0.0

    def add_clips(self, clips: int, frames: int) -> None:
        """Count a batch of `clips` clips with `frames` video frames each."""
        self.clips += clips
        self.frames += clips * frames

    def add_step(self, seconds: float, waited: float) -> None:
        """Count the seconds of a whole step, and those of them in which it waited for clips."""
        self.seconds += seconds
        self.waited += waited

    def values(self) -> dict[str, float]:
        """Since the last call, by the names in the log: `clips_s` and `frames_s`, clips and video
        frames a second of all processes; `data_share`, the share of the time that went into reading
        and encoding clips; and `memory_gib`, this process's peak so far."""
        values = {
            "clips_s": self.processes * self.clips / self.seconds,
            "frames_s": self.processes * self.frames / self.seconds,
            "data_share": self.waited / self.seconds,
            "memory_gib": peak_memory_mb(self.device) / 1024,
        }
        self._restart()
        return values
