"""Whose an output folder is, and its log."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lisa_video.errors import UserError
from lisa_video.training.config import EmaConfig
from lisa_video.training.run_folder import (
    RunLog,
    check_run_folder,
    claim_run_folder,
    read_log,
)
from tests.training.runs import tiny_config


def test_new_and_own_folders_are_fine(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    check_run_folder(config)
    config.output.mkdir()
    check_run_folder(config)
    claim_run_folder(config)
    check_run_folder(config)
    check_run_folder(replace(config, steps=99, checkpoint_every=5))


def test_a_run_older_than_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    claim_run_folder(config)
    path = config.output / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["data"]["augmentation"], settings["data"]["views"], settings["ema"]
    path.write_text(yaml.safe_dump(settings))
    check_run_folder(replace(config, ema=EmaConfig()))
    for changed in (config, tiny_config(tmp_path / "clips", tmp_path / "run", data__views=2)):
        with pytest.raises(UserError, match="other settings"):
            check_run_folder(changed)


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    claim_run_folder(config)
    before = (config.output / "config.yaml").read_text()
    for changed, message in (
        (replace(config, seed=5), "other settings.*seed is 0 there and 5 here"),
        (replace(config, objective="plain"), "objective is lisa there and plain here"),
        (tiny_config(tmp_path / "clips", tmp_path / "run", optimizer__lr=1.0), "optimizer.lr"),
        (replace(config, resume="never"), "holds a run already"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            check_run_folder(changed)
        assert "\n" not in str(caught.value)
    assert (config.output / "config.yaml").read_text() == before

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(UserError, match="no training run"):
        check_run_folder(replace(config, output=tmp_path / "photos"))
    with pytest.raises(UserError, match="is a file"):
        check_run_folder(replace(config, output=tmp_path / "photos" / "cat.png"))
    (config.output / "config.yaml").write_text("{")
    with pytest.raises(UserError, match="not the settings of a training run"):
        check_run_folder(config)


def test_log_drops_what_an_interrupted_run_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in range(5):
        log.write(step, {"loss": 1.0 / (step + 1), "frame_shares": [0.5, 0.5]})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    log = RunLog(tmp_path, 2)
    log.write(3, {"loss": 7.0, "grad_norm": float("inf")})
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1] == {"step": 3, "loss": 7.0, "grad_norm": None}
