"""What a run shows of itself: the log, and what is looked at between steps."""

from __future__ import annotations

from collections.abc import Mapping

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.probe import AdherenceProbe
from lisa_video.training.run_folder import RunLog
from lisa_video.training.state import OnStep, TrainState


class Reporter:
    """Probes, logs and calls `on_step`, in the main process of a run, going on after `step`."""

    def __init__(
        self,
        config: TrainConfig,
        backbone: VideoBackbone,
        networks: Networks,
        probe: AdherenceProbe | None,
        on_step: OnStep | None,
        step: int,
    ) -> None:
        self.config, self.backbone, self.networks = config, backbone, networks
        self.probe, self.on_step = probe, on_step
        self.log = RunLog(config.output, step)

    def report(self, step: int, values: Mapping[str, float | list[float]]) -> None:
        """Say what there is to say of a step; `values` is empty where the step is not logged."""
        probed = step % self.config.probe.every == 0 if self.probe is not None else False
        if self.probe is not None and (probed or step == self.config.steps):
            measured = self.probe.measure(self.networks.side_network).values()
            values = {**values, **{f"probe/{name}": value for name, value in measured.items()}}
        if values:
            self.log.write(step, values)
        if self.on_step is not None:
            with self.networks.as_finished():
                self.on_step(step, TrainState(step, self.backbone, self.networks))

    def close(self) -> None:
        self.log.close()
