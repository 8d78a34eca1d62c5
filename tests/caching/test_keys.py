"""Keys: another one for all that matters, the same one for the rest."""

from dataclasses import replace

import pytest
import torch

from lisa_video.caching.keys import EncoderKeys, tokenizer_settings
from lisa_video.encoders import module_hash
from lisa_video.views import View
from tests.tiny import tiny_backbone
from tests.tiny_wan import tiny_wan

VIEW = View(start=3, step=1.0, frames=4, box=(0, 0, 16, 16), size=(16, 16))


def test_every_part_of_a_view_but_its_poses_matters() -> None:
    keys = EncoderKeys("vae", "text")
    others = [
        replace(VIEW, start=4),
        replace(VIEW, step=2.0),
        replace(VIEW, frames=5),
        replace(VIEW, box=(1, 0, 15, 16)),
        replace(VIEW, size=(16, 32)),
        replace(VIEW, flip=True),
    ]
    found = {keys.latents("a" * 64, view) for view in [VIEW, *others]}
    found |= {keys.latents("b" * 64, VIEW), EncoderKeys("other", "text").latents("a" * 64, VIEW)}
    found |= {keys.states(""), keys.states("a man"), EncoderKeys("vae", "other").states("")}
    assert len(found) == len(others) + 6
    assert all(len(bytes.fromhex(key)) == 16 for key in found)
    withheld = replace(VIEW, pose_seed=7)
    assert keys.latents("a" * 64, withheld) == keys.latents("a" * 64, VIEW)


def test_keys_last_while_a_backbone_is_used() -> None:
    """Encoding leaves marks in a tokenizer, which are not what it does to a prompt."""
    backbone = tiny_backbone()
    before = EncoderKeys.of(backbone)
    backbone.encode_text(["a man", "a man in red"])
    assert EncoderKeys.of(backbone) == before == EncoderKeys.of(tiny_backbone())


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_every_weight_of_an_encoder_matters(part: str) -> None:
    backbone = tiny_backbone()
    before = EncoderKeys.of(backbone)
    for parameter in getattr(backbone, part).parameters():
        value = parameter.data.flatten()[-1].clone()
        parameter.data.view(-1)[-1] = torch.nextafter(value, value + 1)
        after = EncoderKeys.of(backbone)
        assert (after.vae != before.vae) == (part == "vae")
        assert (after.text != before.text) == (part == "text_encoder")
        parameter.data.view(-1)[-1] = value
    assert EncoderKeys.of(backbone) == before


def test_the_main_network_does_not_matter() -> None:
    backbone = tiny_backbone()
    before = EncoderKeys.of(backbone)
    next(backbone.main_network.parameters()).data += 1
    assert EncoderKeys.of(backbone) == before


def test_settings_matter() -> None:
    backbone = tiny_backbone()
    before = EncoderKeys.of(backbone)
    backbone.vae.register_to_config(scaling_factor=0.7)
    changed = EncoderKeys.of(backbone)
    assert changed.vae != before.vae and changed.text == before.text
    backbone.tokenizer.model_max_length = 9
    assert EncoderKeys.of(backbone).text != before.text
    assert tokenizer_settings(backbone.tokenizer)["length"] == 9


def test_prompt_length_matters_where_it_is_a_setting() -> None:
    backbone = tiny_wan()
    before = EncoderKeys.of(backbone)
    backbone.text_tokens += 1
    assert EncoderKeys.of(backbone).text != before.text
    assert EncoderKeys.of(backbone).vae == before.vae


def test_dtype_matters() -> None:
    linear = torch.nn.Linear(2, 2)
    assert module_hash(linear) != module_hash(linear.to(torch.float64))
