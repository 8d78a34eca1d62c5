"""From videos to poses: of one video a pose file, of a folder a dataset."""

from lisa_video.extraction.video_poses import detect_poses, preview_frames

__all__ = ["detect_poses", "preview_frames"]
