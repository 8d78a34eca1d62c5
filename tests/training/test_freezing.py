"""Frozen parts of the side network."""

from pathlib import Path

import pytest
import torch

from lisa_video.errors import UserError
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.checkpoint import latest_checkpoint, load_state
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.freezing import freeze_parts, frozen_line
from lisa_video.training.loop import train
from lisa_video.training.setup import new_networks
from tests.tiny import tiny_backbone
from tests.training.resuming import assert_resumes_exactly
from tests.training.runs import tiny_config

FROZEN = ["motion_modules", "down_blocks.1"]


def test_frozen_parts_stay_and_cost_no_state(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"side_network__freeze": FROZEN}
    state = assert_resumes_exactly(clips, encoder, tmp_path, **changes)
    start = new_networks(tiny_config(clips, tmp_path / "new"), encoder.backbone).side_network
    end, average = state.networks.side_network, state.networks.average
    assert average is not None
    after, averages = end.state_dict(), average.state_dict()
    for name, parameter in start.named_parameters():
        frozen = ".motion_modules." in name or name.startswith("down_blocks.1.")
        assert torch.equal(after[name], parameter) == frozen, name
        assert torch.equal(averages[name], parameter) == frozen, name
    assert all(p.grad is None for p in end.parameters() if not p.requires_grad)
    assert "frozen: motion_modules (" in capsys.readouterr().out


def test_frozen_parameters_are_not_in_the_optimizer(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(
        clips, tmp_path, steps=1, probe__every=0, objective="plain", side_network__freeze=FROZEN
    )
    side = train(config, encoder=encoder).networks.side_network
    stored = load_state(latest_checkpoint(tmp_path) or Path()).optimizer
    trained = sum(p.requires_grad for p in side.parameters())
    assert len(stored["state"]) == len(stored["param_groups"][0]["params"]) == trained
    assert trained < len(list(side.parameters()))


def test_counts() -> None:
    side = UNetSideNetwork.from_backbone(tiny_backbone())
    freeze_parts(side, FROZEN)
    line = frozen_line(side, FROZEN)
    trained = sum(p.numel() for p in side.parameters() if p.requires_grad) / 1e6
    whole = sum(p.numel() for p in side.parameters()) / 1e6
    motion = sum(p.numel() for n, p in side.named_parameters() if "motion_modules" in n) / 1e6
    assert f"trains {trained:.3g} M of {whole:.3g} M weights" in line
    assert f"motion_modules ({motion:.3g} M), down_blocks.1 (" in line


def test_refusals() -> None:
    side = UNetSideNetwork.from_backbone(tiny_backbone())
    with pytest.raises(UserError, match=r"side_network\.freeze.*freezes all"):
        freeze_parts(side, ["*"])
    with pytest.raises(UserError, match=r"side_network\.freeze: 'motion' .* 'motion_modules'"):
        freeze_parts(UNetSideNetwork.from_backbone(tiny_backbone()), ["motion"])
