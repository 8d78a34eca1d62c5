"""Poses as data: skeletons, sequences of keypoints with confidence, and how they are drawn."""

from lisa_video.poses.drawing import draw_pose_frames
from lisa_video.poses.sequence import PoseSequence, validate_keypoints

__all__ = ["PoseSequence", "draw_pose_frames", "validate_keypoints"]
