"""The presets' names and what tells them apart."""

import pytest

from lisa_video.errors import UserError
from lisa_video.metrics.presets import PRESETS, fvd_preset


def test_the_published_protocols() -> None:
    found = {
        name: (preset.resize, preset.pool_frames, preset.ddof, preset.sampling.clips)
        for name, preset in PRESETS.items()
    }
    assert found == {
        "stylegan-v": ("bilinear", 2, 0, 1),
        "original": ("bilinear_tf1", 2, 1, 1),
        "junyaohu": ("short_side_crop", 2, 1, 1),
        "disco": ("bicubic", 1, 1, 0),
    }
    assert all(preset.sampling.frames == 16 for preset in PRESETS.values())
    assert fvd_preset("stylegan-v").real_sampling.start == "random"
    assert fvd_preset("stylegan-v").sampling.start == "first"


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match="'best', known: stylegan-v, original, junyaohu, disco"):
        fvd_preset("best")
