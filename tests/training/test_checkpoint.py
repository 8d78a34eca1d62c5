"""Checkpoints that cannot be used say so in one line."""

from pathlib import Path

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.checkpoint import (
    CheckpointState,
    Networks,
    latest_checkpoint,
    load_state,
    load_trainable,
    save_checkpoint,
)
from tests.tiny import tiny_backbone


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    side = UNetSideNetwork.from_backbone(tiny_backbone())
    output = tmp_path_factory.mktemp("run")
    state = CheckpointState(step=4, optimizer={"state": {}, "param_groups": []}, scaler=None)
    path = save_checkpoint(output, Networks(side, None, None), state, keep=1)
    assert latest_checkpoint(output) == path
    assert {each.name for each in path.iterdir()} == {"side_network", "state.pt"}
    assert load_state(path) == state
    return path


def test_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_unreadable_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.pt: not a readable checkpoint") as caught:
        load_state(tmp_path)
    assert "\n" not in str(caught.value)


def test_state_of_another_version_or_with_objects(tmp_path: Path) -> None:
    torch.save({"format": 9}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="format 9"):
        load_state(tmp_path)
    torch.save({"format": 1, "step": Path("x")}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_state(tmp_path)


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
