"""Clips to latents and text states, in parts and from main memory."""

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.training.encoding import ClipEncoder
from tests.tiny import tiny_backbone
from tests.tiny_wan import tiny_wan


@pytest.mark.parametrize("frames_at_once", [1, 2, 3, 5, 8])
def test_frames_in_parts_are_frames_at_once(frames_at_once: int) -> None:
    backbone = tiny_backbone()
    pixels = torch.rand(2, 5, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = ClipEncoder(backbone).latents(pixels)
    parts = ClipEncoder(backbone, frames_at_once=frames_at_once).latents(pixels)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_vae_that_sees_whole_clips_is_not_split() -> None:
    with pytest.raises(UserError, match=r"data\.encode_frames_at_once=4: .* wan"):
        ClipEncoder(tiny_wan(), frames_at_once=4)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_wan])
def test_parked_encoders_encode_the_same_and_go_back(make) -> None:  # type: ignore[no-untyped-def]
    plain, parked = (ClipEncoder(make(), park=park) for park in (False, True))
    pixels = torch.rand(1, 5, 3, 16, 16) * 2 - 1
    for _ in range(2):
        torch.testing.assert_close(parked.latents(pixels), plain.latents(pixels), rtol=0, atol=0)
        texts = [each.text(["a man", ""]) for each in (parked, plain)]
        torch.testing.assert_close(*texts, rtol=0, atol=0)
        assert all(each.away for each in parked.backbone.encoders.values() if each.loaded)
        assert not any(each.away for each in plain.backbone.encoders.values())
