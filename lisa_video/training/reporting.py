"""What a run shows of itself: the log, and what is looked at between steps."""

from __future__ import annotations

from lisa_video.backbones.base import VideoBackbone
from lisa_video.training.checkpoint import Networks
from lisa_video.training.config import TrainConfig
from lisa_video.training.probe import AdherenceProbe
from lisa_video.training.run_folder import RunLog
from lisa_video.training.split_tensors import is_sharded
from lisa_video.training.state import OnStep, TrainState
from lisa_video.training.trackers import LogValues, start_trackers
from lisa_video.training.validation import Validation


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
        self.trackers = start_trackers(config, step)
        self._newest: dict[str, float] = {}

    def report(self, step: int, values: LogValues, validation: Validation | None = None) -> None:
        """Say what there is to say of a step; `values` is empty where the step is not logged."""
        if self.probe is not None and probe_due(self.config, step):
            measured = self.probe.measure(self.networks.side_network).values()
            values = {**values, **{f"probe/{name}": value for name, value in measured.items()}}
        if validation is not None:
            values = {**values, **validation.values()}
        if values:
            self.log.write(step, values)
            for tracker in self.trackers:
                tracker.write(step, values)
                tracker.show(step, [] if validation is None else validation.videos)
            self._newest |= {
                name: value for name, value in values.items() if isinstance(value, float)
            }
        if self.on_step is not None:
            with self.networks.as_finished():
                self.on_step(step, TrainState(step, self.backbone, self.networks))

    @property
    def summary(self) -> str:
        """The newest figures in short, each as it was last measured: loss, adherence gap, PCK of
        generated clips and its ceiling, and the share of the time that went into reading clips."""
        shown = (
            ("loss", "loss {:.4f}"),
            ("probe/gap", "gap {:.4f}"),
            ("validation/pck@0.1", "PCK {:.2f}"),
            ("validation/ceiling_pck@0.1", "of {:.2f}"),
            ("data_share", "data {:.0%}"),
        )
        parts = [text.format(self._newest[name]) for name, text in shown if name in self._newest]
        return ", ".join(parts).replace(", of", " of")

    def close(self) -> None:
        """Let the trackers write what they hold back."""
        for tracker in self.trackers:
            tracker.close()


def probe_due(config: TrainConfig, step: int) -> bool:
    """Whether a run that has a probe takes it after `step`."""
    return step % config.probe.every == 0 or step == config.steps


def probe_along(
    config: TrainConfig, networks: Networks, probe: AdherenceProbe | None, step: int
) -> None:
    """What the other processes do while the main one reports: where all share the networks' weights,
    its forwards need theirs."""
    if probe is not None and is_sharded(networks.side_network) and probe_due(config, step):
        probe.measure(networks.side_network)
