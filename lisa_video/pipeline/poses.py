"""The poses that a generation follows, window by window.

Shapes: B batch, F video frames, T latent frames, H W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence, draw_pose_frames
from lisa_video.side_networks.base import SideNetwork

KEPT_BYTES = 256 * 2**20
"""Encoded poses that are kept for later steps; however long the video is, no more."""


class PoseFrames:
    """Pose frames, given or drawn when they are asked for; past the end the last one stays.

    - `poses`: drawn frames (B, F, 3, H, W) in [0, 1], or uint8 up to 255; or a pose sequence;
    - `size`: width and height in pixels to draw a sequence at, to which it is stretched.

    Raises UserError where a tensor has another shape, or a sequence no size.
    """

    def __init__(self, poses: Tensor | PoseSequence, size: tuple[int, int] | None) -> None:
        self._poses = poses
        if isinstance(poses, PoseSequence):
            if size is None:
                raise UserError("give width and height: this backbone does not say its own")
            self.batch, self.frames, self.size = 1, len(poses), size
            return
        if poses.ndim != 5 or poses.shape[2] != 3:
            raise UserError(
                f"pose frames {tuple(poses.shape)}: expected (batch, frames, 3, height, width)"
            )
        self.batch, self.frames, _, height, width = poses.shape
        self.size = width, height

    def of(self, indices: Sequence[int]) -> Tensor:
        """The frames at `indices`, (B, f, 3, H, W)."""
        kept = [min(index, self.frames - 1) for index in indices]
        if isinstance(self._poses, Tensor):
            frames = self._poses[:, kept]
            return frames / 255 if frames.dtype == torch.uint8 else frames
        poses = self._poses.frames(kept)
        drawn = draw_pose_frames(poses.keypoints, (poses.width, poses.height), self.size)
        return torch.from_numpy(drawn)[None]


class EncodedPoses:
    """What a side network makes of pose frames, for windows of latent frames.

    A window is encoded as a clip of its own, whose first latent frame stands for one pose frame,
    once: what was encoded last is kept, up to `KEPT_BYTES`.
    """

    def __init__(
        self,
        backbone: VideoBackbone,
        side_network: SideNetwork,
        frames: PoseFrames,
        batch: int,
        device: torch.device,
    ) -> None:
        self._per_latent, self._side_network = backbone.frames_per_latent, side_network
        self._frames, self._batch, self._device = frames, batch, device
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def window(self, start: int, stop: int) -> Tensor:
        """Of latent frames `start` to `stop`, which is left out; as `forward` takes it."""
        key = start, stop
        if key not in self._kept:
            first, steps = start * self._per_latent, stop - start - 1
            indices = range(first, first + steps * self._per_latent + 1)
            frames = self._frames.of(indices).to(self._device, self._side_network.dtype)
            self._kept[key] = self._side_network.encode_poses(
                frames.expand(self._batch, -1, -1, -1, -1)
            )
            while len(self._kept) > 1 and self._bytes() > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _bytes(self) -> int:
        return sum(each.nbytes for each in self._kept.values())
