"""Settings of one training run, a file for each part of it. Imports nothing heavy."""

from lisa_video.training.config.backbone import BackboneConfig
from lisa_video.training.config.data import DataConfig
from lisa_video.training.config.networks import LoraConfig, SideNetworkConfig
from lisa_video.training.config.objective import (
    AlignmentConfig,
    LossConfig,
    TimestepConfig,
    aligned_count,
    aligned_steps,
)
from lisa_video.training.config.observation import (
    ProbeConfig,
    TrackerName,
    ValidationConfig,
    WandbConfig,
)
from lisa_video.training.config.optimizer import EmaConfig, OptimizerConfig
from lisa_video.training.config.run import Objective, Precision, TrainConfig

__all__ = [
    "AlignmentConfig",
    "BackboneConfig",
    "DataConfig",
    "EmaConfig",
    "LoraConfig",
    "LossConfig",
    "Objective",
    "OptimizerConfig",
    "Precision",
    "ProbeConfig",
    "SideNetworkConfig",
    "TimestepConfig",
    "TrackerName",
    "TrainConfig",
    "ValidationConfig",
    "WandbConfig",
    "aligned_count",
    "aligned_steps",
]
