"""run.json over the lives of a run."""

import json
import sys
from pathlib import Path

import pytest

from lisa_video.cli import config_to_dict
from lisa_video.errors import UserError
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_record import RunRecord, read_record
from lisa_video.training.state import TrainState
from tests.training.runs import tiny_config


def test_a_finished_run_says_what_it_was(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2-in-the-environment"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setattr(sys, "argv", ["train.py", "--data.shards", "s3://me:pass@bucket/set"])
    config = tiny_config(clips, tmp_path, steps=3)
    train(config, encoder=encoder)
    run = read_record(tmp_path)
    assert (run.status, run.reason, run.first_step, run.step, run.steps) == (
        "finished",
        None,
        0,
        3,
        3,
    )
    assert run.started <= run.updated and run.ended == run.updated
    assert run.config == json.loads(json.dumps(config_to_dict(config)))
    assert run.backbone["fingerprint"] == encoder.backbone.fingerprint()
    assert run.seeds == {"training": 0, "probe": 0, "validation": 0}
    assert run.versions.keys() >= {"python", "lisa_video", "torch", "diffusers"}
    assert run.hardware["processes"] == 1 and run.hardware["memory_gib"] > 0
    assert len(run.data) == len(run.sources) == 64 and run.history == []
    assert run.figures["probe/gap"] is not None and run.figures["step_s"] is not None
    text = (tmp_path / "run.json").read_text()
    assert secret not in text and "pass@" not in text and "s3://***@bucket/set" in text

    # A repeated command finds nothing to do, and the record stays that of the run.
    train(config, encoder=encoder)
    assert (tmp_path / "run.json").read_text() == text


def test_interruptions_and_failures_become_history(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path, steps=4, checkpoint_every=1)

    def stop(step: int, _: TrainState) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def fail(step: int, _: TrainState) -> None:
        if step == 3:
            raise UserError("no more room\nfor clips")

    with pytest.raises(KeyboardInterrupt):
        train(config, encoder=encoder, on_step=stop)
    run = read_record(tmp_path)
    assert (run.status, run.step) == ("interrupted", 1) and run.ended is not None
    with pytest.raises(UserError):
        train(config, encoder=encoder, on_step=fail)
    run = read_record(tmp_path)
    assert (run.status, run.first_step, run.step) == ("failed", 1, 2)
    assert run.reason is not None and "no more room" in run.reason
    train(config, encoder=encoder)
    run = read_record(tmp_path)
    assert [part.status for part in (*run.history, run)] == ["interrupted", "failed", "finished"]
    assert [part.first_step for part in (*run.history, run)] == [0, 1, 2]
    assert run.figures["probe/gap"] is not None


def test_a_run_that_ended_without_a_word_was_killed(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    config = tiny_config(clips, tmp_path, steps=2, checkpoint_every=1)
    train(tiny_config(clips, tmp_path, steps=1), encoder=encoder)
    path = tmp_path / "run.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"status": "running", "ended": None}))
    train(config, encoder=encoder)
    run = read_record(tmp_path)
    assert run.status == "finished"
    (earlier,) = run.history
    assert earlier.status == "killed" and earlier.ended == values["updated"]


def test_a_record_that_cannot_be_read_is_kept_and_begun_anew(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config(clips, tmp_path, steps=1), encoder=encoder)
    (tmp_path / "run.json").write_text('{"format": 1, "status"')
    train(tiny_config(clips, tmp_path, steps=2), encoder=encoder)
    assert read_record(tmp_path).history == []
    assert (tmp_path / "run.unreadable.json").read_text() == '{"format": 1, "status"'
    assert "the history begins anew" in capsys.readouterr().out


def test_nothing_is_written_of_a_run_that_never_started(tmp_path: Path) -> None:
    with pytest.raises(UserError), RunRecord(tiny_config(tmp_path, tmp_path / "run")):
        raise UserError("wrong from the start")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no training run there"),
        ("[1]", "not a readable record"),
        ("{", "not a readable record"),
        ('{"format": 7}', "record format 7, this version reads 1"),
        ('{"format": 1, "status": 3}', "not a readable record of a run: .*status"),
        ("[" * 100_000, "not a readable record"),
    ],
)
def test_records_that_are_none(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
