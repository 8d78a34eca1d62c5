"""Evaluation of generated video against real video and against the poses asked for."""

from lisa_video.evaluation.pose_scores import PoseScores, ScoredClip, score_clips
from lisa_video.metrics.pose_presets import PoseTally

__all__ = ["PoseScores", "PoseTally", "ScoredClip", "score_clips"]
