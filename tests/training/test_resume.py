"""Going on with a run: what must be as it was, and starting another run from its checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lisa_video.errors import UserError
from lisa_video.training.checkpoint import checkpoints, load_state, step_of
from lisa_video.training.config import TrainConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log, start_checkpoint
from tests.training.runs import assert_same_runs, tiny_config


def config_of(clips: Path, output: Path, **changes: Any) -> TrainConfig:
    return tiny_config(clips, output, **({"probe__every": 0, "checkpoint_every": 2} | changes))


@pytest.fixture(scope="module")
def run(clips: Path, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps with checkpoints of steps 2, 4 and 6."""
    config = config_of(clips, tmp_path_factory.mktemp("runs") / "run", keep_checkpoints=3)
    train(config, encoder=encoder)
    assert [step_of(path) for path in checkpoints(config.output)] == [2, 4, 6]
    return config.output


@pytest.fixture
def begun(run: Path, tmp_path: Path) -> Path:
    """The same run as if it had been killed after its fourth step."""
    shutil.copytree(run, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints" / "step_00000006")
    shutil.rmtree(tmp_path / "begun" / "side_network")
    return tmp_path / "begun"


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Another run from a checkpoint of this one.


def test_a_run_from_a_checkpoint_of_another_goes_its_way(
    run: Path, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    start = run / "checkpoints" / "step_00000002"
    fork = config_of(clips, tmp_path / "fork", resume=str(start))
    train(fork, encoder=encoder)
    assert_same_runs(run, fork.output)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_it_goes_on_by_itself_from_its_own_checkpoints_or_the_first_again(
    run: Path, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    start = run / "checkpoints" / "step_00000002"
    fork = config_of(clips, tmp_path / "fork", resume=str(start), checkpoint_every=1)

    def interrupt(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fork, encoder=encoder, on_step=interrupt)
    assert checkpoints(fork.output) == []
    # Also where the flag is left out.
    plain = config_of(clips, fork.output)
    assert start_checkpoint(plain) == start
    train(config_of(clips, fork.output, steps=4), encoder=encoder)
    assert [row["step"] for row in read_log(fork.output)] == [1, 2, 3, 4]
    assert yaml.safe_load((fork.output / "config.yaml").read_text())["resume"] == str(start)
    assert start_checkpoint(fork) == fork.output / "checkpoints" / "step_00000004"
    train(fork, encoder=encoder)
    assert_same_runs(run, fork.output)


def test_it_may_have_other_settings_where_that_is_allowed(
    run: Path, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    start = str(run / "checkpoints" / "step_00000004")
    changes = {"resume": start, "optimizer__lr": 1e-4, "optimizer__weight_decay": 0.5}
    with pytest.raises(UserError, match=r"optimizer\.lr is 0\.001 there and 0\.0001") as caught:
        train(config_of(clips, tmp_path / "fork", **changes), encoder=encoder)
    assert "--allow_changed settings" in one_line(caught)
    fork = config_of(clips, tmp_path / "fork", allow_changed="settings", **changes)
    train(fork, encoder=encoder)
    rates = {row["step"]: row["lr"] for row in read_log(fork.output) if row["step"]}
    assert rates == pytest.approx({1: 5e-4, 2: 1e-3, 3: 1e-3, 4: 1e-3, 5: 1e-4, 6: 1e-4})
    groups = load_state(fork.output / "checkpoints" / "step_00000006").optimizer["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]
    moved = shutil.copytree(start, tmp_path / "alone")
    alone = config_of(clips, tmp_path / "other", resume=str(moved))
    with pytest.raises(UserError, match="lies outside of its run"):
        train(alone, encoder=encoder)


def test_other_networks_cannot_be_given_a_checkpoint(
    run: Path, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    start = str(run / "checkpoints" / "step_00000004")
    for changes, key in (
        ({"objective": "plain"}, "objective"),
        ({"alignment__tap": "down_2"}, "alignment.tap"),
        ({"side_network__injection": {"stride": 2}}, "side_network.injection"),
    ):
        fork = config_of(
            clips, tmp_path / "fork", resume=start, allow_changed="settings", **changes
        )
        with pytest.raises(UserError, match=f"networks with other settings .{key}") as caught:
            train(fork, encoder=encoder)
        one_line(caught)


def test_starts_that_cannot_be(
    run: Path, clips: Path, tmp_path: Path, encoder: ClipEncoder
) -> None:
    start = str(run / "checkpoints" / "step_00000002")
    for changes, output, problem in (
        ({"resume": str(tmp_path)}, tmp_path / "new", "no checkpoint there"),
        ({"resume": start}, run, "did not start from"),
        ({"resume": start, "steps": 1}, tmp_path / "new", "has done more already"),
        ({"steps": 3}, run, "has done more already"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            train(config_of(clips, output, **changes), encoder=encoder)
        one_line(caught)


# What must be as it was.


def test_changed_clips_need_a_flag(
    begun: Path, clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    """A moved dataset is the same."""
    copy = shutil.copytree(clips, tmp_path / "clips")
    train(config_of(copy, begun, steps=5), encoder=encoder)
    manifest = copy / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("a man", "a woman"))
    with pytest.raises(UserError, match=r"clips, captions or poses .* have changed") as caught:
        train(config_of(copy, begun), encoder=encoder)
    assert "--allow_changed data" in one_line(caught)
    train(config_of(copy, begun, allow_changed="data"), encoder=encoder)
    train(config_of(copy, begun, steps=7), encoder=encoder)


def test_changed_code_needs_a_flag(begun: Path, clips: Path, encoder: ClipEncoder) -> None:
    path = begun / "checkpoints" / "step_00000004" / "checkpoint.json"
    index = json.loads(path.read_text())
    index["provenance"]["code"]["packages"]["torch"] = "1.13.0"
    path.write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"is by lisa_video .*torch 1\.13\.0.*, and this is"
    ) as caught:
        train(config_of(clips, begun), encoder=encoder)
    assert "--allow_changed code" in one_line(caught)
    train(config_of(clips, begun, allow_changed="code"), encoder=encoder)


def test_a_damaged_checkpoint_is_named_and_never_passed_over(
    run: Path, begun: Path, clips: Path, encoder: ClipEncoder
) -> None:
    newest = begun / "checkpoints" / "step_00000004"
    weights = newest / "side_network" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match=f"{weights}: is .* bytes long instead of") as caught:
        train(config_of(clips, begun), encoder=encoder)
    assert one_line(caught).endswith(f"move {newest} away to go on from step 2")
    newest.rename(begun / "damaged")
    train(config_of(clips, begun), encoder=encoder)
    assert_same_runs(run, begun)
