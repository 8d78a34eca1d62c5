"""A run of the real training loop, shared, and loaded as on another machine."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import ControlNetModel

from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence
from lisa_video.sharing.config import ShareConfig
from lisa_video.sharing.job import check_share, share
from lisa_video.training.config import ValidationConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from tests.tiny import tiny_backbone, tiny_checkpoint, tiny_detector
from tests.training.runs import tiny_config, write_clips


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a network without motion modules, with a validation."""
    folder = tmp_path_factory.mktemp("share")
    tiny_checkpoint(folder / "backbone")
    config = tiny_config(
        write_clips(folder / "clips"),
        folder / "my run",
        str(folder / "backbone"),
        steps=2,
        validation=ValidationConfig(
            every=2,
            clips=2,
            inference_steps=1,
            detector_weights=tiny_detector(folder / "detector"),
            videos=2,
        ),
        side_network__motion_modules=False,
    )
    train(config, encoder=ClipEncoder(tiny_backbone(), cache=True))
    return config.output


def test_a_shared_folder_loads_with_one_line_and_holds_no_path(run: Path, tmp_path: Path) -> None:
    config = ShareConfig(run, tmp_path / "shared", samples=1, controlnet=True)
    check_share(config)
    assert share(config) == tmp_path / "shared"
    names = {str(path.relative_to(config.out)) for path in config.out.rglob("*") if path.is_file()}
    samples = {name for name in names if name.startswith("samples/")}
    assert len(samples) == 1
    assert names - samples == {
        "README.md",
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "samples.png",
        "controlnet/config.json",
        "controlnet/diffusion_pytorch_model.safetensors",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]
    card = (config.out / "README.md").read_text()
    assert str(run.parent) not in card and str(Path.home()) not in card
    for part in (
        "# my run",
        "2 of 2",
        "| validation/pck@0.1 |",
        "LISA ([likelihood",
        'kind="animate',
    ):
        assert part in card, part
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0" and "base_model" not in head

    keypoints = np.random.default_rng(0).uniform(0, 32, (4, 1, 18, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    poses = PoseSequence(keypoints, 32, 32, fps=8)
    videos = [
        PoseToVideoPipeline.from_pretrained(run.parent / "backbone", side_network=folder)(
            "a man", poses, num_inference_steps=2, generator=torch.Generator().manual_seed(0)
        ).frames
        for folder in (run / "side_network", config.out)
    ]
    np.testing.assert_array_equal(*videos)
    controlnet = ControlNetModel.from_pretrained(config.out / "controlnet")
    assert controlnet.config.cross_attention_dim == 32


def test_a_hub_name_of_the_backbone_goes_into_the_card(run: Path, tmp_path: Path) -> None:
    config = ShareConfig(run, tmp_path / "s", backbone="some/backbone", samples=0, license="mit")
    share(config)
    card = (config.out / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["base_model"] == "some/backbone" and head["license"] == "mit"
    assert 'from_pretrained("some/backbone", side_network="THIS_FOLDER"' in card
    assert "samples.png" not in card


def test_adapters_of_the_backbone_are_taken_along(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    (copied / "lora").mkdir()
    (copied / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    folder = share(ShareConfig(copied, tmp_path / "shared"))
    assert [path.name for path in (folder / "lora").iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    card = (folder / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(example, "card", "exec")
    assert "load_lora(pipeline.main_network" in example


def test_what_cannot_be_shared_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "run.json").write_bytes((run / "run.json").read_bytes())
    linked = tmp_path / "linked"
    (linked / "side_network").mkdir(parents=True)
    (linked / "run.json").write_bytes((run / "run.json").read_bytes())
    for file in (run / "side_network").iterdir():
        (linked / "side_network" / file.name).symlink_to(file)
    for config, message in [
        (ShareConfig(run, tmp_path / "there"), "there: exists already"),
        (ShareConfig(run, tmp_path / "no" / "where"), "its folder does not exist"),
        (ShareConfig(tmp_path / "there", tmp_path / "s"), "no training run there"),
        (ShareConfig(tmp_path / "started", tmp_path / "s"), "has no side_network yet"),
        (ShareConfig(linked, tmp_path / "s"), "a link that leads out of the folder"),
    ]:
        with pytest.raises(UserError, match=message):
            check_share(config)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "no name"}, "a hub name reads user/name"),
        ({"license": "do what you like"}, "the hub spells it"),
        ({"samples": -1}, "samples=-1"),
    ],
)
def test_settings_are_checked_when_made(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShareConfig(Path("run"), Path("out"), **changes)
