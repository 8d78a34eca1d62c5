"""Training with adapters in the main network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from lisa_video.adapters import (
    WEIGHTS_FILE,
    adapted_layers,
    has_lora,
    load_lora,
    lora_parameters,
    own_weights,
    remove_lora,
)
from lisa_video.errors import UserError
from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.training.checkpoint import checkpoints, load_state
from lisa_video.training.config import LoraConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.setup import start_networks
from lisa_video.training.sharding import check_sharding
from lisa_video.training.state import TrainState
from tests.tiny import model_inputs, tiny_backbone, tiny_checkpoint
from tests.training.processes import run_training
from tests.training.resuming import assert_resumes_exactly
from tests.training.runs import tiny_config

LORA = LoraConfig(rank=2, alpha=4, lr_scale=2.0)


@pytest.fixture
def own_encoder() -> ClipEncoder:
    """On a backbone that other tests do not share."""
    return ClipEncoder(tiny_backbone(), cache=True)


def copied(values: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in values.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": "plain", "ema__decay": 0.0},
        {"lora": LoraConfig(rank=2, targets=["up_blocks.*.to_q"]), "gradient_checkpointing": True},
        {"optimizer__kind": "adamw_8bit", "optimizer__gradient_accumulation_steps": 2},
    ],
    ids=["lisa", "plain, no average", "late layers", "8 bit"],
)
def test_runs_with_adapters_go_on_bit_for_bit(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    state = assert_resumes_exactly(clips, own_encoder, tmp_path, **{"lora": LORA, **changes})
    assert state.networks.lora is not None
    moved = [value for name, value in state.networks.lora.tensors.items() if "lora_B" in name]
    assert moved and all(value.abs().sum() > 0 for value in moved)
    folder = tmp_path / "whole" / "lora"
    kept = "lora_average" if state.networks.average is not None else "lora"
    last = checkpoints(tmp_path / "whole")[-1] / kept
    files = [load_file(each / WEIGHTS_FILE) for each in (folder, last)]
    torch.testing.assert_close(*files, rtol=0, atol=0)


def test_the_backbone_stays_and_the_prior_is_its(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = own_encoder.backbone
    noisy, timesteps, text, _ = model_inputs()
    weights, prior = (
        copied(backbone.main_network.state_dict()),
        backbone.predict(noisy, timesteps, text),
    )
    fingerprint = backbone.fingerprint()
    train(tiny_config(clips, tmp_path / "lora", lora=LORA), encoder=own_encoder)
    layers = len(adapted_layers(backbone.main_network))
    assert layers and f"adapters in {layers} layers" in capsys.readouterr().out
    assert has_lora(backbone.main_network)
    after = own_weights(backbone.main_network)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert torch.equal(backbone.predict(noisy, timesteps, text), prior)
    backbone._fingerprint = None
    assert backbone.fingerprint() == fingerprint
    frozen = [p for n, p in backbone.main_network.named_parameters() if ".lora_" not in n]
    assert all(p.grad is None and not p.requires_grad for p in frozen)

    # The next run on the same backbone starts without them; its first loss is the same.
    train(tiny_config(clips, tmp_path / "plain"), encoder=own_encoder)
    assert not has_lora(backbone.main_network)
    with_lora, without = (read_log(tmp_path / name) for name in ("lora", "plain"))
    assert with_lora[0] == without[0]
    assert with_lora[1]["loss"] == pytest.approx(without[1]["loss"], rel=1e-6)
    assert with_lora[6]["main"] != without[6]["main"]
    assert {row["probe/prior"] for row in with_lora if "probe/prior" in row} == {
        without[0]["probe/prior"]
    }


def test_on_step_sees_the_averaged_adapters(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path
) -> None:
    """They belong to the averaged side network that `finished` is; training itself goes on."""
    seen: list[bool] = []

    def look(step: int, state: TrainState) -> None:
        lora, average = state.networks.lora, state.networks.lora_average
        assert lora is not None and average is not None
        used = lora_parameters(state.backbone.main_network)
        seen.append(all(torch.equal(used[name], average.tensors[name]) for name in used))

    state = train(
        tiny_config(clips, tmp_path, steps=3, lora=LORA), encoder=own_encoder, on_step=look
    )
    assert seen == [True] * 4
    lora, average = state.networks.lora, state.networks.lora_average
    assert lora is not None and average is not None
    assert any(not torch.equal(lora.tensors[name], average.tensors[name]) for name in lora.tensors)

    remove_lora(own_encoder.backbone.main_network)
    load_lora(own_encoder.backbone.main_network, tmp_path / "lora", "unet")
    loaded = lora_parameters(own_encoder.backbone.main_network)
    assert all(torch.equal(loaded[name], average.tensors[name]) for name in loaded)


def test_generating_while_training_changes_nothing(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path
) -> None:
    """A pipeline makes the main network a backbone again, which is frozen but for its adapters."""

    def generate(step: int, state: TrainState) -> None:
        networks = state.networks
        pipeline = PoseToVideoPipeline.from_backbone(state.backbone, networks.finished)
        pipeline.set_progress_bar_config(disable=True)
        pipeline("a man", torch.zeros(1, 2, 3, 16, 16), num_inference_steps=1)

    settings: dict[str, Any] = {"objective": "plain", "steps": 3, "probe__every": 0, "lora": LORA}
    ends = []
    for name, on_step in (("quiet", None), ("busy", generate)):
        config = tiny_config(clips, tmp_path / name, **settings)
        lora = train(config, encoder=own_encoder, on_step=on_step).networks.lora
        assert lora is not None
        ends.append(copied(lora.tensors))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_adapters_learn_at_their_own_rate(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path
) -> None:
    """Adam's first step moves every weight with a gradient by the learning rate."""

    def moved(scale: float) -> float:
        config = tiny_config(
            clips,
            tmp_path / f"{scale}",
            steps=1,
            probe__every=0,
            optimizer__weight_decay=0.0,
            lora=LoraConfig(rank=2, lr_scale=scale),
        )
        lora = train(config, encoder=own_encoder).networks.lora
        assert lora is not None
        return max(float(v.detach().abs().max()) for n, v in lora.tensors.items() if "lora_B" in n)

    assert moved(10.0) == pytest.approx(10 * moved(1.0), rel=1e-3)


def test_seed_gives_the_adapters_and_leaves_the_side_network(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path
) -> None:
    backbone = own_encoder.backbone

    def start(**changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        networks = start_networks(tiny_config(clips, tmp_path, **changes), backbone, None)
        lora = {} if networks.lora is None else copied(networks.lora.tensors)
        return lora, copied(networks.side_network.state_dict())

    first, other_seed, none = start(lora=LORA), start(lora=LORA, seed=1), start()
    torch.testing.assert_close(start(lora=LORA), first, rtol=0, atol=0)
    torch.testing.assert_close(none[1], first[1], rtol=0, atol=0)
    assert not none[0]
    assert any(not torch.equal(first[0][name], other_seed[0][name]) for name in first[0])


def test_checkpoints_of_other_adapters_are_refused(
    clips: Path, own_encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path, steps=1, probe__every=0, lora=LORA)
    train(config, encoder=own_encoder)
    checkpoint = checkpoints(tmp_path)[-1]
    for lora in (LoraConfig(rank=3), LoraConfig(rank=2, targets=["to_q"])):
        changed = tiny_config(clips, tmp_path, lora=lora)
        with pytest.raises(UserError, match="other layers or another rank") as caught:
            start_networks(changed, own_encoder.backbone, checkpoint)
        assert str(checkpoint / "lora") in str(caught.value)


def test_all_that_trains_is_float32_beside_a_bfloat16_backbone(clips: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    encoder = ClipEncoder(tiny_backbone().to(dtype=torch.bfloat16), cache=True)
    settings: dict[str, Any] = {"mixed_precision": "bf16", "steps": 2, "lora": LORA}
    networks = train(tiny_config(clips, tmp_path, **settings), encoder=encoder).networks
    AcceleratorState._reset_state(reset_partial_state=True)
    assert networks.average is not None and networks.decoder is not None
    assert networks.lora is not None and networks.lora_average is not None
    kept: list[Tensor] = [
        *networks.side_network.parameters(),
        *networks.average.parameters(),
        *networks.decoder.parameters(),
        *networks.lora.tensors.values(),
        *networks.lora_average.tensors.values(),
    ]
    state = load_state(checkpoints(tmp_path)[-1]).optimizer["state"]
    kept += [value for each in state.values() for value in each.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    own = own_weights(encoder.backbone.main_network)
    assert {tensor.dtype for tensor in own.values()} == {torch.bfloat16}


@pytest.mark.slow
def test_two_processes_train_adapters_as_one_with_twice_the_batch(
    clips: Path, tmp_path: Path
) -> None:
    backbone = tiny_checkpoint(tmp_path / "backbone")
    weights = []
    for processes in (1, 2):
        config = tiny_config(
            clips,
            tmp_path / f"run_{processes}",
            str(backbone),
            steps=3,
            lora=LORA,
            data__batch_size=4 // processes,
            alignment__frame_weighting=False,
            pose_dropout=0.0,
            probe__every=0,
            optimizer__gradient_accumulation_steps=2,
        )
        run_training(config, processes)
        weights.append(load_file(config.output / "lora" / WEIGHTS_FILE))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-5)


def test_split_weights_train_no_adapters_and_keep_adamw(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_lora = tiny_config(clips, tmp_path, lora=LORA)
    other_kind = tiny_config(clips, tmp_path, optimizer__kind="adamw_8bit")
    for config in (with_lora, other_kind):
        check_sharding(config)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_sharding(tiny_config(clips, tmp_path, optimizer__kind="adamw_fused"))
    for config, part in ((with_lora, r"lora\.rank 0"), (other_kind, "adamw_8bit")):
        with pytest.raises(UserError, match=f"FSDP: .*{part}"):
            check_sharding(config)
