"""Pose-controlled generation as a diffusers pipeline."""

from lisa_video.pipeline.outputs import PoseToVideoOutput
from lisa_video.pipeline.pose_to_video import PoseToVideoPipeline

__all__ = ["PoseToVideoOutput", "PoseToVideoPipeline"]
