"""Whole tiny trainings.

B batch, F frames, C latent channels, h w latent cells.
"""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.backbones import load_side_network
from lisa_video.backbones.animatediff import AnimateDiffBackbone
from lisa_video.decoder import TapDecoders
from lisa_video.errors import UserError
from lisa_video.manifest import DatasetWriter, load_manifest
from lisa_video.poses import PoseSequence
from lisa_video.side_networks.unet import UNetSideNetwork
from lisa_video.training.batches import BatchStream
from lisa_video.training.checkpoint import checkpoints, latest_checkpoint, load_state
from lisa_video.training.config import AlignmentConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.losses import Conditions, NoisedLatents
from lisa_video.training.preparation import prepare_batch
from lisa_video.training.run_folder import read_log
from lisa_video.training.setup import new_networks
from lisa_video.training.sources import open_dataset, open_probe_dataset
from lisa_video.training.state import TrainState
from lisa_video.video import read_video
from tests.tiny import tiny_backbone
from tests.training.runs import SIZE, tiny_config, untimed_log, write_clips


def weights(network: nn.Module | None) -> dict[str, Tensor]:
    assert network is not None
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_same(first: Any, second: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_interrupted_run_goes_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"optimizer__gradient_accumulation_steps": 2, "checkpoint_every": 3}
    whole = tiny_config(clips, tmp_path / "whole", **settings)
    first = train(whole, encoder=encoder)

    def interrupt(step: int, _: TrainState) -> None:
        if step == 5:
            raise KeyboardInterrupt

    parts = tiny_config(clips, tmp_path / "parts", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(parts, encoder=encoder, on_step=interrupt)
    assert [row["step"] for row in read_log(parts.output)][-1] == 5
    torch.manual_seed(999)
    seen: list[int] = []
    second = train(
        parts, encoder=ClipEncoder(encoder.backbone), on_step=lambda step, _: seen.append(step)
    )
    assert seen == [4, 5, 6]

    for name in ("side_network", "average", "decoder"):
        assert_same(weights(getattr(first.networks, name)), weights(getattr(second.networks, name)))
    ends = [load_state(latest_checkpoint(config.output) or Path()) for config in (whole, parts)]
    assert ends[0].step == ends[1].step == 6
    assert_same(ends[0].optimizer, ends[1].optimizer)
    for one, other in zip(untimed_log(whole.output), untimed_log(parts.output), strict=True):
        assert one == other


def test_buckets_and_augmentation_train_and_go_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """Of two lengths and shapes, stopped after each step and taken up again."""
    settings: dict[str, Any] = {
        "data__buckets": [(4, SIZE, SIZE), (2, SIZE, SIZE // 2)],
        "data__max_stride": 2,
        "data__augmentation": AugmentationConfig(
            flip=0.5,
            crop_scale=(0.5, 1.0),
            crop_centre="people",
            joint_dropout=0.2,
            frame_dropout=0.2,
        ),
        "optimizer__gradient_accumulation_steps": 2,
        "checkpoint_every": 1,
        "probe__every": 0,
    }
    root = write_clips(tmp_path / "clips", train=4, validation=2, length=6)
    with DatasetWriter(tmp_path / "mixed") as writer:
        for entry in load_manifest(root):
            frames = read_video(root / entry.video).frames
            poses = PoseSequence.load(root / entry.poses)
            if entry.id in ("clip_0", "clip_1", "clip_2"):
                frames, poses = frames[:, : SIZE // 2], replace(poses, height=SIZE // 2)
            writer.add(entry.id, frames, poses, caption="to the left", split=entry.split)
    whole = tiny_config(tmp_path / "mixed", tmp_path / "whole", steps=4, **settings)
    first = train(whole, encoder=encoder)
    assert {len(row["frame_shares"]) for row in read_log(whole.output)} == {2, 4}
    for steps in range(1, 5):
        part = tiny_config(tmp_path / "mixed", tmp_path / "part", steps=steps, **settings)
        second = train(part, encoder=ClipEncoder(encoder.backbone))
    for name in ("side_network", "average", "decoder"):
        assert_same(weights(getattr(first.networks, name)), weights(getattr(second.networks, name)))
    assert untimed_log(whole.output) == untimed_log(part.output)


@pytest.mark.parametrize(
    ("buckets", "problem"),
    [
        ([(4, SIZE, SIZE), (99, SIZE, SIZE)], r"data\.buckets\[1\]=99: .* at most 16"),
        ([(4, SIZE, SIZE + 1)], r"data\.buckets\[0\]=\[16, 17\]: .* multiples of 4"),
    ],
)
def test_buckets_that_the_backbone_cannot_take(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, buckets: Any, problem: str
) -> None:
    config = tiny_config(clips, tmp_path, data__buckets=buckets)
    with pytest.raises(UserError, match=problem):
        open_dataset(config, encoder.backbone, "train")


def test_held_out_clips_have_one_shape_and_no_augmentation(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    changes = {
        "data__buckets": [(2, SIZE, SIZE)],
        "data__augmentation": AugmentationConfig(flip=1.0, frame_dropout=1.0),
    }
    for split in ("validation", "train"):
        plain = tiny_config(clips, tmp_path, data__validation_split=split)
        changed = tiny_config(clips, tmp_path, data__validation_split=split, **changes)
        assert open_dataset(changed, encoder.backbone, "train")[0].pixels.shape[0] == 2
        expected, found = (
            open_probe_dataset(config, encoder.backbone) for config in (plain, changed)
        )
        for index in range(2):
            assert found.view(index, 0) == expected.view(index, 0)


def test_longer_run_continues_a_finished_one(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    whole = train(tiny_config(clips, tmp_path / "whole", steps=3), encoder=encoder)
    for steps in (2, 3):
        part = train(tiny_config(clips, tmp_path / "part", steps=steps), encoder=encoder)
    assert_same(weights(whole.networks.side_network), weights(part.networks.side_network))
    again = train(tiny_config(clips, tmp_path / "part", steps=3), encoder=encoder)
    assert_same(weights(again.networks.side_network), weights(part.networks.side_network))


def test_both_objectives_see_the_same(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    """Same start, clips, windows, noise, timesteps and dropout."""
    starts, inputs = [], []
    for objective in ("plain", "lisa"):
        config = tiny_config(clips, tmp_path, objective=objective)
        dataset = open_dataset(config, encoder.backbone, "train")
        batches = islice(BatchStream(dataset, config).batches(0), 4)
        read: list[tuple[list[str], NoisedLatents, Conditions]] = [
            (batch.clips.ids, *prepare_batch(config, encoder, batch)) for batch in batches
        ]
        starts.append(weights(new_networks(config, encoder.backbone).side_network))
        inputs.append([(ids, vars(noised), vars(given)) for ids, noised, given in read])
    assert_same(starts[0], starts[1])
    for one, other in zip(*inputs, strict=True):
        assert one[0] == other[0]
        assert_same(one[1], other[1])
        assert_same(one[2], other[2])


def test_objectives_differ_by_the_alignment_loss_alone(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    logs = {}
    for objective in ("plain", "lisa"):
        config = tiny_config(clips, tmp_path / objective, objective=objective, steps=6)
        state = train(config, encoder=encoder)
        logs[objective] = read_log(config.output)
        assert (state.networks.decoder is None) == (objective == "plain")
        assert (config.output / "decoder").exists() == (objective == "lisa")
    plain, lisa = logs["plain"], logs["lisa"]
    assert plain[0] == lisa[0] and plain[0]["probe/gap"] == 0
    assert plain[1]["main"] == pytest.approx(lisa[1]["main"], rel=1e-6)
    assert plain[1]["loss"] == plain[1]["main"] and "alignment" not in plain[1]
    row = lisa[1]
    assert row["loss"] == pytest.approx(row["main"] + 0.2 * row["alignment"])
    assert row["ratio"] == pytest.approx(1) and row["explained"] == pytest.approx(0, abs=1e-6)
    assert len(row["frame_shares"]) == 4 and sum(row["frame_shares"]) == pytest.approx(1)
    # A new decoder and new projections give zeros, so alignment moves the features from step 2 on, first by little.
    assert plain[6]["main"] != lisa[6]["main"]


def test_accumulated_passes_equal_one_large_batch(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """With gradients clipped far down, which clipping each pass by itself would not survive."""
    shared: dict[str, Any] = {
        "optimizer__max_grad_norm": 0.02,
        "alignment__frame_weighting": False,
        "pose_dropout": 0.0,
        "steps": 3,
    }
    runs = {
        "one": {"data__batch_size": 4},
        "two": {"data__batch_size": 2, "optimizer__gradient_accumulation_steps": 2},
    }
    states, logs = [], []
    for name, spread in runs.items():
        config = tiny_config(clips, tmp_path / name, **shared, **spread)
        states.append(train(config, encoder=encoder))
        logs.append(untimed_log(config.output))
    for one, two in zip(*logs, strict=True):
        assert one.pop("frame_shares", []) == pytest.approx(two.pop("frame_shares", []), rel=1e-3)
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    assert logs[0][1]["grad_norm"] > 0.05
    torch.testing.assert_close(
        weights(states[0].networks.side_network),
        weights(states[1].networks.side_network),
        rtol=0,
        atol=1e-4,
    )


def test_backbone_stays_as_it_was(clips: Path, tmp_path: Path) -> None:
    encoder = ClipEncoder(tiny_backbone(seed=3), cache=True)
    parts = (encoder.backbone.main_network, encoder.backbone.vae, encoder.backbone.text_encoder)
    before = [weights(part) for part in parts]
    train(tiny_config(clips, tmp_path, steps=3, gradient_checkpointing=True), encoder=encoder)
    for part, old in zip(parts, before, strict=True):
        assert_same(weights(part), old)
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())


@pytest.mark.parametrize("objective", ["plain", "lisa"])
def test_training_lowers_the_held_out_loss(
    objective: str, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(
        clips,
        tmp_path,
        objective=objective,
        steps=60,
        optimizer__lr=3e-3,
        probe__every=60,
        probe__draws=4,
        log_every=20,
        pose_dropout=0.0,
    )
    train(config, encoder=encoder)
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == [0, 20, 40, 60]
    first, last = rows[0], rows[-1]
    assert last["probe/true"] < 0.9 * first["probe/true"]
    assert last["probe/explained"] > 0.1
    assert last["probe/prior"] == first["probe/prior"]


def test_finished_network_is_the_average_and_knows_its_backbone(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    seen: dict[int, float] = {}
    config = tiny_config(
        clips, tmp_path, steps=4, checkpoint_every=1, keep_checkpoints=2, log_every=2
    )

    def remember(step: int, state: TrainState) -> None:
        assert state.step == step
        seen[step] = state.networks.finished.projections["mid"].weight.abs().sum().item()

    state = train(config, encoder=encoder, on_step=remember)
    assert sorted(seen) == [0, 1, 2, 3, 4] and seen[0] == 0 < seen[4]
    saved = load_side_network(tmp_path / "side_network")
    saved.check_backbone(encoder.backbone)
    assert_same(weights(saved), weights(state.networks.average))
    assert not torch.equal(saved.conv_in.weight, state.networks.side_network.conv_in.weight)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000003", "step_00000004"]
    assert [row["step"] for row in read_log(tmp_path)] == [0, 2, 3, 4]
    assert list((tmp_path / "tensorboard").iterdir())


def test_training_goes_on_from_a_given_side_network(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    start = train(tiny_config(clips, tmp_path / "start", steps=2), encoder=encoder)
    config = tiny_config(
        clips,
        tmp_path / "more",
        alignment__tap="down_2",
        side_network__init_from=tmp_path / "start" / "side_network",
    )
    networks = new_networks(config, encoder.backbone)
    assert_same(weights(networks.side_network), weights(start.networks.average))
    assert list(networks.side_network.tap_points) == ["down_2"]
    with pytest.raises(UserError, match="another backbone") as caught:
        new_networks(config, tiny_backbone(seed=8))
    assert str(tmp_path / "start") in str(caught.value) and "\n" not in str(caught.value)


def test_loss_that_is_not_finite_names_step_and_clips(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    broken = UNetSideNetwork.from_backbone(encoder.backbone, taps=["down_1"])
    nn.init.constant_(broken.projections["mid"].bias, float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    config = tiny_config(
        clips, tmp_path / "run", probe__every=0, side_network__init_from=tmp_path / "broken"
    )
    with pytest.raises(UserError, match=r"step 1: the loss is nan on clips clip_\d, clip_\d;"):
        train(config, encoder=encoder)
    assert latest_checkpoint(config.output) is None


def test_bfloat16_keeps_trained_weights_in_float32(clips: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    encoder = ClipEncoder(tiny_backbone().to(dtype=torch.bfloat16), cache=True)
    config = tiny_config(clips, tmp_path, mixed_precision="bf16", steps=3)
    state = train(config, encoder=encoder)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert {p.dtype for p in state.networks.side_network.parameters()} == {torch.float32}
    rows = [json.dumps(row) for row in read_log(tmp_path)]
    assert len(rows) == 4 and not any("null" in row for row in rows)


@pytest.mark.gpu
def test_float16_resumes_on_a_gpu(clips: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    encoder = ClipEncoder(tiny_backbone().to("cuda", torch.float16))
    for steps in (3, 5):
        config = tiny_config(clips, tmp_path, mixed_precision="fp16", steps=steps)
        state = train(config, encoder=encoder)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert load_state(latest_checkpoint(tmp_path) or Path()).scaler
    assert {p.dtype for p in state.networks.side_network.parameters()} == {torch.float32}
    assert [row["step"] for row in read_log(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_decoder_can_learn_at_its_own_rate(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """Adam's first step moves every weight with a gradient by the learning rate."""

    def moved(scale: float) -> float:
        config = tiny_config(
            clips,
            tmp_path / f"{scale}",
            steps=1,
            alignment__decoder_lr_scale=scale,
            optimizer__weight_decay=0.0,
        )
        decoder = train(config, encoder=encoder).networks.decoder
        assert decoder is not None
        return decoder["down_1"].conv_out.weight.abs().max().item()

    assert moved(10.0) == pytest.approx(10 * moved(1.0), rel=1e-3)


# The alignment loss in some steps, of some clips, of several taps.

ECONOMY: dict[str, Any] = {
    "alignment": AlignmentConfig(
        tap=["down_1", "mid"], every=2, fraction=0.5, schedule="cosine", until=5
    ),
}


def test_economy_is_logged_where_it_is_made_and_goes_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    settings = {
        **ECONOMY,
        "optimizer__gradient_accumulation_steps": 2,
        "checkpoint_every": 1,
        "probe__every": 0,
    }
    whole = tiny_config(clips, tmp_path / "whole", **settings)
    first = train(whole, encoder=encoder)
    rows = {row["step"]: row for row in read_log(whole.output)}
    assert [step for step, row in rows.items() if "alignment" in row] == [2, 4]
    for step in (2, 4):
        row = rows[step]
        assert row["alignment/mid"] > 0 and row["alignment"] == pytest.approx(
            (row["alignment/down_1"] + row["alignment/mid"]) / 2
        )
        loss = row["main"] + row["alignment_weight"] * row["alignment"]
        assert row["loss"] == pytest.approx(loss)
    assert rows[2]["alignment_weight"] > rows[4]["alignment_weight"]
    assert rows[5]["loss"] == rows[5]["main"] and "explained" not in rows[5]

    def interrupt(step: int, _: TrainState) -> None:
        if step == 2:
            raise KeyboardInterrupt

    # Before the first step with an alignment loss, between two, and after the last.
    part = tiny_config(clips, tmp_path / "part", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(part, encoder=encoder, on_step=interrupt)
    assert latest_checkpoint(part.output) == checkpoints(part.output)[0]
    for steps in range(2, 7):
        part = tiny_config(clips, tmp_path / "part", steps=steps, **settings)
        second = train(part, encoder=ClipEncoder(encoder.backbone))
    for name in ("side_network", "average", "decoder"):
        assert_same(weights(getattr(first.networks, name)), weights(getattr(second.networks, name)))
    assert untimed_log(whole.output) == untimed_log(part.output)
    assert sorted(path.name for path in (whole.output / "decoder").iterdir()) == ["down_1", "mid"]


def test_after_its_end_nothing_of_the_alignment_runs(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are those of the plain objective bit for bit, here from the same weights, since
    clips without poses have no alignment loss before the end either."""
    until = AlignmentConfig(tap="down_1", schedule="until", until=2)
    lisa, plain = (
        tiny_config(
            clips, tmp_path / name, objective=name, alignment=until, pose_dropout=1.0, steps=4
        )
        for name in ("lisa", "plain")
    )
    train(replace(lisa, steps=2), encoder=encoder)

    monkeypatch.delattr(AnimateDiffBackbone, "predict_with_prior")
    monkeypatch.delattr(TapDecoders, "forward")
    kept: list[dict[str, Tensor]] = []
    states = [
        train(
            lisa,
            encoder=encoder,
            on_step=lambda _, state: kept.append(weights(state.networks.decoder)),
        ),
        train(plain, encoder=encoder),
    ]
    assert_same(*(weights(state.networks.side_network) for state in states))
    assert_same(kept[0], kept[-1])
    rows = [read_log(config.output) for config in (lisa, plain)]
    assert ["alignment" in row for row in rows[0]] == [False, True, True, False, False]
    for name in ("loss", "main", "grad_norm"):
        assert [row[name] for row in rows[0][3:]] == [row[name] for row in rows[1][3:]]


def test_alignment_in_some_steps_moves_the_decoder_in_these_alone(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """Not even by weight decay or moments."""
    kept: dict[int, dict[str, Tensor]] = {}
    config = tiny_config(clips, tmp_path, alignment=AlignmentConfig(tap="down_1", every=3))
    train(
        config,
        encoder=encoder,
        on_step=lambda step, state: kept.update({step: weights(state.networks.decoder)}),
    )
    for step in range(1, 7):
        same = all(torch.equal(kept[step][name], kept[step - 1][name]) for name in kept[0])
        assert same == (step not in (3, 6)), step
