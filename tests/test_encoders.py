"""Encoders that are loaded when they are asked for, and known before."""

import os
from pathlib import Path

import pytest
import torch

from lisa_video.backbones import load_backbone
from lisa_video.caching.keys import EncoderKeys
from lisa_video.encoders import FrozenEncoder, file_sha256
from lisa_video.errors import UserError
from tests.tiny import tiny_backbone, tiny_checkpoint, tiny_vae
from tests.tiny_cogvideox import cogvideox_inputs, tiny_cogvideox, tiny_cogvideox_checkpoint
from tests.tiny_wan import tiny_wan, tiny_wan_checkpoint

CHECKPOINTS = {
    "animatediff": (tiny_backbone, tiny_checkpoint),
    "wan": (tiny_wan, tiny_wan_checkpoint),
    "cogvideox": (tiny_cogvideox, tiny_cogvideox_checkpoint),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_later_is_the_same_as_now(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    _, save = CHECKPOINTS[kind]
    folder = save(tmp_path / "checkpoint")
    now = load_backbone(kind, folder, dtype=dtype)
    later = load_backbone(kind, folder, dtype=dtype, encoders_later=True)

    assert EncoderKeys.of(now) == EncoderKeys.of(later)
    for name in ("latent_channels", "vae_scale_factor", "frame_size", "size_multiple"):
        assert getattr(now, name) == getattr(later, name)
    assert not any(encoder.loaded for encoder in later.encoders.values())

    pixels = torch.rand(1, 9, 3, 32, 32) * 2 - 1
    latents = later.encode_video(pixels)
    torch.testing.assert_close(latents, now.encode_video(pixels), rtol=0, atol=0)
    assert not later.encoders["text_encoder"].loaded
    text = later.encode_text(["a man"])
    torch.testing.assert_close(text, now.encode_text(["a man"]), rtol=0, atol=0)
    decoded = [each.decode_video(latents) for each in (now, later)]
    torch.testing.assert_close(*decoded, rtol=0, atol=0)
    for module in (later.vae, later.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_rotary_positions_need_no_vae(tmp_path: Path) -> None:
    backbone = tiny_cogvideox(use_rotary_positional_embeddings=True)
    folder = tiny_cogvideox_checkpoint(tmp_path / "rotary", backbone)
    later = load_backbone("cogvideox", folder, encoders_later=True)
    noisy, timesteps, text, _ = cogvideox_inputs()
    with torch.no_grad():
        expected = backbone.predict(noisy, timesteps, text)
        torch.testing.assert_close(later.predict(noisy, timesteps, text), expected)
    assert not later.encoders["vae"].loaded


def test_a_broken_encoder_is_found_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="not a loadable AutoencoderKL"):
        load_backbone("animatediff", folder)
    later = load_backbone("animatediff", folder, encoders_later=True)
    with pytest.raises(UserError, match="not a loadable AutoencoderKL"):
        later.load_encoders()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no diffusion_pytorch_model\.safetensors"):
        EncoderKeys.of(later)


def test_keys_of_files_tell_weights_settings_and_dtype_apart(tmp_path: Path) -> None:
    def keys(backbone: object, name: str, dtype: torch.dtype = torch.float32) -> EncoderKeys:
        folder = tiny_checkpoint(tmp_path / name, backbone)
        return EncoderKeys.of(load_backbone("animatediff", folder, dtype=dtype))

    same = keys(tiny_backbone(), "one")
    assert keys(tiny_backbone(), "two") == same
    half = keys(tiny_backbone(), "half", torch.bfloat16)
    assert half.vae != same.vae and half.text != same.text
    changed = tiny_backbone()
    next(changed.vae.parameters()).data[0] += 1
    assert keys(changed, "weight").vae != same.vae
    assert keys(changed, "weight").text == same.text
    scaled = tiny_backbone()
    scaled.vae.register_to_config(scaling_factor=0.7)
    assert keys(scaled, "setting").vae != same.vae


def test_a_checksum_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISA_VIDEO_CACHE", str(tmp_path / "notes"))
    monkeypatch.setattr("lisa_video.encoders._NOTED_FROM", 0)
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_sha256(path)
    notes = list((tmp_path / "notes" / "checksums").iterdir())
    assert len(notes) == 1 and notes[0].read_text() == first
    notes[0].write_text("f" * 64)
    assert file_sha256(path) == "f" * 64  # it was not read again
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_sha256(path) not in (first, "f" * 64)
    notes[0].write_text("cut off")
    path.write_bytes(b"one")
    assert file_sha256(path) == first


def test_parked_encoders_come_back() -> None:
    encoder = FrozenEncoder.of(tiny_vae())
    encoder.to("meta", None)
    assert encoder.model().device.type == "meta"
    backbone = tiny_backbone()
    backbone.park_encoders()
    assert backbone.encode_text(["a man"]).device == backbone.device
