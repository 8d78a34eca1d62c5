"""Clips to what the networks read: latents and text states.

Shapes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent cells,
L tokens of text, D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.caching.clips import EncodedBatch
from lisa_video.dataset import ClipBatch
from lisa_video.errors import UserError


class ClipEncoder:
    """The frozen encoders of a backbone, with a memory of what they made where `cache` is set.

    Several runs on the same clips can share one encoder, and with it the loaded backbone and the
    memory. Clips and captions are encoded one at a time, and latents are the posterior's mode, so
    that what a clip becomes depends neither on its batch nor on what is remembered. Batches that
    come encoded, from a cache, pass through: the encoders are not asked.

    `park` leaves VAE and text encoder in main memory but for the time in which they encode.
    `frames_at_once` is how many frames a VAE of single images takes at a time; None: the backbone's
    own. Raises UserError where the VAE sees more than single images.
    """

    def __init__(
        self,
        backbone: VideoBackbone,
        *,
        cache: bool = False,
        park: bool = False,
        frames_at_once: int | None = None,
    ) -> None:
        if frames_at_once is not None and backbone.frames_per_latent > 1:
            raise UserError(
                f"data.encode_frames_at_once={frames_at_once}: the VAE of a backbone of kind "
                f"{backbone.kind} sees a clip as a whole; leave it null"
            )
        self.backbone = backbone
        self.cache, self.park, self.frames_at_once = cache, park, frames_at_once
        self._latents: dict[bytes, Tensor] = {}
        self._text: dict[str, Tensor] = {}

    def batch_latents(self, clips: ClipBatch | EncodedBatch) -> Tensor:
        """Latents (B, C, T, h, w) of a batch, on the backbone's device."""
        if isinstance(clips, EncodedBatch):
            return clips.latents.to(self.backbone.device)
        return self.latents(clips.pixels)

    def batch_text(self, clips: ClipBatch | EncodedBatch, dropped: Sequence[bool]) -> Tensor:
        """Text states (B, L, D) of a batch, on the backbone's device; of the empty caption where
        one is `dropped`."""
        if isinstance(clips, EncodedBatch):
            states = zip(clips.states, dropped, strict=True)
            chosen = [clips.empty_states if gone else kept for kept, gone in states]
            return torch.stack(chosen).to(self.backbone.device)
        captions = zip(clips.captions, dropped, strict=True)
        return self.text(["" if gone else caption for caption, gone in captions])

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1] -> latents (B, C, T, h, w) on the backbone's device."""
        # In one layout, whatever the VAE's is: the order of sums, and so their last bits, follow it.
        latents = torch.cat([self._clip_latents(clip[None]) for clip in pixels]).contiguous()
        self._done()
        return latents

    def text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> (B, L, D) on the backbone's device."""
        states = torch.cat([self._caption_states(caption) for caption in captions]).contiguous()
        self._done()
        return states

    def _clip_latents(self, pixels: Tensor) -> Tensor:
        if not self.cache:
            return self._encoded(pixels)
        key = hashlib.sha256(pixels.cpu().contiguous().numpy().data).digest()
        key += str(tuple(pixels.shape)).encode()
        if key not in self._latents:
            self._latents[key] = self._encoded(pixels)
        return self._latents[key]

    def _encoded(self, pixels: Tensor) -> Tensor:
        parts = pixels.split(self.frames_at_once or pixels.shape[1], dim=1)
        return torch.cat([self.backbone.encode_video(part) for part in parts], dim=2)

    def _done(self) -> None:
        if self.park:
            self.backbone.park_encoders()

    def _caption_states(self, caption: str) -> Tensor:
        if not self.cache:
            return self.backbone.encode_text([caption])
        if caption not in self._text:
            self._text[caption] = self.backbone.encode_text([caption])
        return self._text[caption]
