"""Training and generation with a Wan backbone, from the command lines users type."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from lisa_video.backbones import load_side_network
from lisa_video.backbones.wan import WanSideNetwork
from lisa_video.cli import parse_config
from lisa_video.generation import check_generation, generate
from lisa_video.generation_config import GenerateConfig
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.video import read_video
from tests.tiny_wan import TOKENS, tiny_wan, tiny_wan_checkpoint
from tests.training.runs import launch, tiny_config, written

ROOT = Path(__file__).parents[2]
BATCH = 2
LATENT_FRAMES = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_checkpoint(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder(tiny_wan(), cache=True)


def wan_config(
    clips: Path, output: Path, backbone: str = "unused", **changes: object
) -> TrainConfig:
    settings = {
        "backbone__kind": "wan",
        "backbone__text_tokens": TOKENS,
        "data__frames": 5,
        "side_network__injection": {"even": 2},
        "alignment__tap": "block_2",
    }
    return tiny_config(clips, output, backbone, **settings | changes)


def test_job_trains_and_the_result_generates(tmp_path: Path, clips: Path, checkpoint: Path) -> None:
    run = tmp_path / "run"
    assert launch(written(tmp_path, wan_config(clips, run, str(checkpoint), steps=3))) is None
    side = load_side_network(run / "side_network")
    assert isinstance(side, WanSideNetwork)
    assert list(side.blocks) == ["block_2", "block_5"]
    last = read_log(run)[-1]
    assert len(last["frame_shares"]) == LATENT_FRAMES
    assert sum(last["frame_shares"]) == pytest.approx(1)
    assert last["probe/gap"] == pytest.approx(last["probe/shuffled"] - last["probe/true"])

    arguments = [
        *("--backbone.path", str(checkpoint), "--backbone.kind", "wan"),
        *("--side_network", str(run / "side_network"), "--prompt", "a man"),
        *("--driving.poses", str(next((clips / "poses").glob("*.npz")))),
        *("--driving.frames", "5", "--sampling.steps", "2"),
    ]
    output = tmp_path / "video.mp4"
    config, _ = parse_config(
        GenerateConfig, [*arguments, "--output", str(output), "--size", "[32, 16]"], ""
    )
    check_generation(config)
    generate(config)
    assert read_video(output).frames.shape == (5, 16, 32, 3)


@pytest.mark.parametrize("objective", ["plain", "lisa"])
def test_interrupted_run_goes_on_bit_for_bit(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, objective: str
) -> None:
    def config(name: str, **changes: object) -> TrainConfig:
        return wan_config(clips, tmp_path / name, objective=objective, steps=4, **changes)

    whole = train(config("whole"), encoder=encoder)

    def interrupt(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config("parts", checkpoint_every=2), encoder=encoder, on_step=interrupt)
    parts = train(config("parts", checkpoint_every=2), encoder=encoder)
    one, two = (state.networks.finished.state_dict() for state in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_both_objectives_start_alike(clips: Path, encoder: ClipEncoder, tmp_path: Path) -> None:
    plain, lisa = (
        train(wan_config(clips, tmp_path / name, objective=name, steps=1), encoder=encoder)
        for name in ("plain", "lisa")
    )
    rows = [read_log(tmp_path / name) for name in ("plain", "lisa")]
    assert rows[0][0] == rows[1][0]
    assert rows[0][1]["main"] == rows[1][1]["main"]
    assert plain.networks.decoder is None and lisa.networks.decoder is not None


def test_backbone_stays_as_it_was(clips: Path, tmp_path: Path) -> None:
    backbone = tiny_wan()
    before = {name: value.clone() for name, value in backbone.main_network.state_dict().items()}
    train(wan_config(clips, tmp_path / "run", steps=2), encoder=ClipEncoder(backbone))
    after = backbone.main_network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in backbone.main_network.parameters())


def test_bfloat16_and_checkpointing_train_the_narrow_network(
    clips: Path, tmp_path: Path, checkpoint: Path
) -> None:
    config = wan_config(
        clips,
        tmp_path / "run",
        str(checkpoint),
        steps=2,
        mixed_precision="bf16",
        gradient_checkpointing=True,
        side_network__hidden_size=16,
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    state = train(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert state.backbone.dtype == torch.bfloat16
    assert {p.dtype for p in state.networks.side_network.parameters()} == {torch.float32}
    assert state.networks.side_network.config.hidden_size == 16


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--data.frames", "6"], ["data.frames=6", "1 + 4k frames; 5 or 9 would fit"]),
        (["--data.size", "[20, 16]"], ["data.size=[20, 16]", "multiples of 8"]),
        (["--side_network.injection", "{stride: 7}"], ["stride", "between 1 and 6"]),
        (["--side_network.injection", "[9]"], ["index 9", "block_0"]),
        (["--alignment.tap", "block_4"], ["taps names block_4", "block_2"]),
        (["--side_network.hidden_size", "12"], ["hidden_size=12", "multiple of 8"]),
        (["--side_network.controlnet", "x"], ["side_network.controlnet", "kind wan"]),
        (["--backbone.motion_adapter", "x"], ["backbone.motion_adapter", "kind wan"]),
        (["--backbone.kind", "animatediff"], ["backbone.text_tokens", "kind animatediff"]),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    clips: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    parts: list[str],
) -> None:
    config = wan_config(clips, tmp_path / "run", str(checkpoint))
    assert launch(written(tmp_path, config), *flags) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for part in parts:
        assert part in errors[0], errors[0]
    assert not (tmp_path / "run").exists()


def test_side_network_of_another_backbone_is_refused(
    tmp_path: Path, clips: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_wan(seed=1).new_side_network().save_pretrained(tmp_path / "other")
    config = wan_config(clips, tmp_path / "run", str(checkpoint))
    flags = ["--side_network.init_from", str(tmp_path / "other"), "--objective", "plain"]
    assert launch(written(tmp_path, config), *flags) == 2
    assert "was made for another backbone" in capsys.readouterr().err
