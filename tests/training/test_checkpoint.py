"""Checkpoints that cannot be used say so in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.checkpoint import (
    CheckpointState,
    Networks,
    checkpoints,
    latest_checkpoint,
    load_state,
    load_trainable,
    read_index,
    save_checkpoint,
    verify_checkpoint,
)
from lisa_video.training.provenance import Provenance, code_version
from tests.tiny import tiny_backbone

PROVENANCE = Provenance("0" * 64, code_version())
STATE = CheckpointState(step=4, optimizer={"state": {}, "param_groups": []}, scaler=None)


@pytest.fixture(scope="module")
def side() -> UNetSideNetwork:
    return UNetSideNetwork.from_backbone(tiny_backbone())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, side: UNetSideNetwork) -> Path:
    output = tmp_path_factory.mktemp("run")
    path = save_checkpoint(output, Networks(side, None, None), STATE, PROVENANCE)
    assert latest_checkpoint(output) == path
    names = {each.name for each in path.iterdir()}
    assert names == {"side_network", "state.pt", "checkpoint.json"}
    assert load_state(path) == STATE
    index = verify_checkpoint(path)
    assert index.provenance == PROVENANCE and index.step == 4
    assert "side_network/diffusion_pytorch_model.safetensors" in index.files
    return path


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The only checkpoint of a run, to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoints" / checkpoint.name))


def test_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_every_damaged_file_is_named(checkpoint: Path, copy: Path) -> None:
    names = [*read_index(checkpoint).files, "checkpoint.json"]
    assert len(names) == 4
    for name in names:
        path, whole = copy / name, (checkpoint / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        damages = [whole[:-1], b"", whole[: len(whole) // 2], None]
        for content in [*damages, flipped] if name != "checkpoint.json" else damages[1:]:
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(UserError) as caught:
                verify_checkpoint(copy)
            message = str(caught.value)
            assert message.startswith(f"{path}: is ") and "\n" not in message
            assert message.endswith(f"move {copy} away to begin again")
            path.write_bytes(whole)
        verify_checkpoint(copy)


def test_what_is_left_when_the_newest_goes_is_said(copy: Path) -> None:
    newer = Path(shutil.copytree(copy, copy.with_name("step_00000006")))
    (newer / "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match=f"move {newer} away to go on from step 4"):
        verify_checkpoint(newer)


def test_sizes_alone_are_looked_at_without_reading(copy: Path) -> None:
    content = bytearray((copy / "state.pt").read_bytes())
    content[100] ^= 1
    (copy / "state.pt").write_bytes(content)
    verify_checkpoint(copy, contents=False)
    with pytest.raises(UserError, match=r"state\.pt: is not what was written"):
        verify_checkpoint(copy)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_unreadable_state(copy: Path, content: bytes) -> None:
    (copy / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.pt: is not readable") as caught:
        load_state(copy)
    assert "\n" not in str(caught.value)


def test_state_of_another_version_or_with_objects(copy: Path) -> None:
    torch.save({"optimizer": Path("x"), "scaler": None}, copy / "state.pt")
    with pytest.raises(UserError, match="not readable"):
        load_state(copy)
    index = json.loads((copy / "checkpoint.json").read_text())
    (copy / "checkpoint.json").write_text(json.dumps(index | {"format": 9}))
    with pytest.raises(UserError, match="format 9"):
        load_state(copy)


def test_given_weights_take_the_place_of_a_networks_own(
    tmp_path: Path, side: UNetSideNetwork
) -> None:
    gathered = {name: torch.rand_like(value) for name, value in side.state_dict().items()}
    state = replace(STATE, step=7)
    path = save_checkpoint(
        tmp_path, Networks(side, None, None), state, PROVENANCE, weights={"side_network": gathered}
    )
    assert checkpoints(tmp_path) == [path]
    loaded = load_trainable(path / "side_network", tiny_backbone(), []).state_dict()
    torch.testing.assert_close(loaded, gathered, rtol=0, atol=0)


def test_weights_of_another_backbone_or_without_the_tap(checkpoint: Path) -> None:
    folder = checkpoint / "side_network"
    side = load_trainable(folder, tiny_backbone(), ["mid"])
    assert side.training and list(side.tap_points) == ["mid"]
    with pytest.raises(UserError, match="another backbone"):
        load_trainable(folder, tiny_backbone(seed=1), [])
    with pytest.raises(UserError, match="down_9"):
        load_trainable(folder, tiny_backbone(), ["down_9"])
    with pytest.raises(UserError, match="nothing_here"):
        load_trainable(checkpoint / "nothing_here", tiny_backbone(), [])
