"""The training of the embedded Wan checkpoint, shortened to a few steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from lisa_video.backbones.wan import WanBackbone
from lisa_video.errors import UserError
from lisa_video.figures.config import (
    FiguresConfig,
    PretrainWanConfig,
    WanTransformerConfig,
    WanVaeConfig,
)
from lisa_video.figures.model_card import write_wan_model_card
from lisa_video.figures.pretraining_wan import pretrain_wan, train_tokenizer

CAPTIONS = ["a tall person walking, grey wall", "a short person, red wall"]


def short(folder: Path, **changes: object) -> PretrainWanConfig:
    config = PretrainWanConfig(
        output=folder / "run",
        figures=FiguresConfig(clips=4, frames=9, size=16, workers=1),
        vae=WanVaeConfig(
            base_width=4,
            latent_channels=4,
            image_steps=1,
            video_steps=1,
            images=2,
            batch_size=1,
            frames=5,
        ),
        transformer=WanTransformerConfig(
            heads=2,
            head_width=12,
            layers=2,
            ffn_width=32,
            text_width=32,
            text_tokens=[24, 40],
            frames=9,
            image_steps=1,
            video_steps=2,
            batch_size=2,
        ),
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, motion_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    pretrain_wan(short(folder), motion_folder)
    return folder


def test_result_is_a_complete_checkpoint(folder: Path) -> None:
    pipeline = WanPipeline.from_pretrained(folder / "run" / "backbone")
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a person", height=16, width=16, num_frames=5, num_inference_steps=1, output_type="np"
    ).frames
    assert frames.shape == (1, 5, 16, 16, 3)
    backbone = WanBackbone.from_pretrained(folder / "run" / "backbone")
    pixels = torch.rand(1, 9, 3, 16, 16) * 2 - 1
    assert backbone.encode_video(pixels).shape == (1, 4, 3, 4, 4)
    assert len(set(backbone.vae.config.latents_std)) == 4


def test_repeated_command_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, motion_folder: Path
) -> None:
    config = short(folder, output=tmp_path)
    shorter = replace(config.transformer, video_steps=1)
    pretrain_wan(replace(config, transformer=shorter), motion_folder)
    # The schedule differs with the number of steps, so compare what does not depend on it.
    weights = "vae/diffusion_pytorch_model.safetensors"
    ours, theirs = (path / "backbone" / weights for path in (tmp_path, folder / "run"))
    assert ours.read_bytes() == theirs.read_bytes()
    pretrain_wan(config, motion_folder)
    state = torch.load(tmp_path / "transformer.pt", weights_only=True)
    assert state["step"] == 3


def test_model_card_tells_the_run(folder: Path) -> None:
    write_wan_model_card(short(folder), folder / "run" / "backbone")
    card = (folder / "run" / "backbone" / "README.md").read_text()
    assert "2 blocks of width 24" in card and "padded to 24 or 40 tokens" in card
    assert "nan" not in card
    assert (folder / "run" / "backbone" / "samples.png").stat().st_size > 1000


def test_tokenizer_knows_words_and_spells_the_rest() -> None:
    tokenizer = train_tokenizer(CAPTIONS)
    assert tokenizer.tokenize("a tall person") == ["▁a", "▁tall", "▁person"]
    assert (
        tokenizer.decode(tokenizer("Zebra, 9!").input_ids, skip_special_tokens=True) == "Zebra, 9!"
    )
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


def test_settings_that_the_vae_cannot_take_are_refused() -> None:
    with pytest.raises(UserError, match=r"vae.frames=8: the Wan VAE takes 1 \+ 4k frames"):
        WanVaeConfig(frames=8)
    with pytest.raises(UserError, match=r"transformer.frames=12"):
        WanTransformerConfig(frames=12)
    with pytest.raises(UserError, match="need 3 levels"):
        WanVaeConfig(width_factors=[1, 2])
