"""The text that a generation reads, window by window.

Shapes: B batch, P prompts of a travel, F video frames, L tokens of text, D text width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lisa_video.backbones.base import VideoBackbone
from lisa_video.errors import UserError
from lisa_video.long_video.prompts import travel_weights
from lisa_video.long_video.settings import PromptTravel

_log = logging.getLogger(__name__)

Prompt = str | list[str] | PromptTravel | None


@dataclass(frozen=True)
class TextStates:
    """Encoded prompts; with `travel`, those of one clip."""

    prompt: Tensor
    """(B, L, D), of a travel (P, L, D)."""
    negative: Tensor | None
    """(B, L, D); None: no guidance."""
    travel: Tensor | None = None
    """How much each prompt counts at each frame, (F, P)."""

    def window(self, frames: range) -> tuple[Tensor, Tensor | None]:
        """Of these video frames: the prompt's and the negative prompt's (B, L, D)."""
        if self.travel is None:
            return self.prompt, self.negative
        shares = self.travel[frames.start : frames.stop].mean(dim=0).to(self.prompt)
        return torch.einsum("p,pld->ld", shares, self.prompt)[None], self.negative


def encoded_prompts(
    backbone: VideoBackbone,
    prompt: Prompt,
    negative_prompt: str | list[str],
    embeds: tuple[Tensor | None, Tensor | None],
    *,
    batch: int,
    frames: int,
    guided: bool,
    device: torch.device,
) -> TextStates:
    """Encode prompts for `batch` clips of `frames` frames, or take what is encoded already.

    `embeds` are the states of the prompt and of the negative prompt, in place of their words. What
    of a prompt is too long for the text encoder is told in a line of the log.
    """
    travel = None
    given, given_negative = embeds
    if given is not None:
        positive = _expanded(given, batch, "prompt_embeds")
    elif isinstance(prompt, PromptTravel):
        if batch != 1:
            raise UserError(f"prompt travel makes one clip, and there are {batch}")
        travel = travel_weights(prompt, frames)
        positive = _encode(backbone, [each.prompt for each in prompt.prompts], "prompt")
    else:
        assert prompt is not None
        positive = _encode(backbone, repeated(prompt, batch, "prompt"), "prompt")
    if not guided:
        negative = None
    elif given_negative is not None:
        negative = _expanded(given_negative, batch, "negative_prompt_embeds")
    else:
        texts = repeated(negative_prompt, batch, "negative_prompt")
        negative = _encode(backbone, texts, "negative_prompt")
    if negative is not None and negative.shape[1:] != positive.shape[1:]:
        raise UserError(
            f"prompt_embeds {tuple(positive.shape)} and negative_prompt_embeds "
            f"{tuple(negative.shape)}: tokens and width must agree"
        )
    dtype = backbone.dtype
    return TextStates(
        positive.to(device, dtype),
        None if negative is None else negative.to(device, dtype),
        None if travel is None else travel.to(device),
    )


def clips_asked_for(prompt: Prompt, embeds: Tensor | None, sequences: int) -> int:
    """How many clips prompts and pose sequences make; UserError where they do not match."""
    if (prompt is None) == (embeds is None):
        raise UserError("give either prompt or prompt_embeds")
    prompts = 1
    if embeds is not None:
        if embeds.ndim != 3:
            raise UserError(f"prompt_embeds {tuple(embeds.shape)}: expected (batch, tokens, width)")
        prompts = len(embeds)
    elif isinstance(prompt, list):
        prompts = len(prompt)
    if prompts != sequences and 1 not in (prompts, sequences):
        raise UserError(f"{prompts} prompts and {sequences} pose sequences: give as many, or one")
    return max(prompts, sequences)


def repeated(prompts: str | Sequence[str], batch: int, name: str) -> list[str]:
    """One prompt for each of `batch` clips."""
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if len(texts) not in (1, batch):
        raise UserError(f"{name}: {len(texts)} texts for {batch} clips, give as many, or one")
    return texts * (batch // len(texts))


def _encode(backbone: VideoBackbone, texts: list[str], name: str) -> Tensor:
    for text in dict.fromkeys(texts):
        cut = backbone.cut_text(text)
        if cut:
            _log.warning(
                "warning: %s is too long for the text encoder (%d tokens), cut off: '%s'",
                name,
                backbone.text_length,
                cut,
            )
    return backbone.encode_text(texts)


def _expanded(embeds: Tensor, batch: int, name: str) -> Tensor:
    if len(embeds) not in (1, batch):
        raise UserError(f"{name}: {len(embeds)} texts for {batch} clips, give as many, or one")
    return embeds.expand(batch, -1, -1)
