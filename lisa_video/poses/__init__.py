"""Poses as data: skeletons, sequences of keypoints with confidence, and how they are drawn."""

from lisa_video.poses.drawing import draw_pose_frames
from lisa_video.poses.sequence import PoseSequence, validate_keypoints
from lisa_video.poses.skeletons import blazepose_to_openpose, coco_to_openpose

__all__ = [
    "PoseSequence",
    "blazepose_to_openpose",
    "coco_to_openpose",
    "draw_pose_frames",
    "validate_keypoints",
]
