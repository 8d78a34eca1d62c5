"""Whose an output folder is, and its log."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lisa_video.errors import UserError
from lisa_video.training.config import EmaConfig, TrainConfig
from lisa_video.training.run_folder import (
    RunLog,
    check_run_folder,
    claim_run_folder,
    held_run_folder,
    read_log,
)
from tests.training import forks
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


def test_more_steps_keep_a_falling_learning_rate_as_it_was(tmp_path: Path) -> None:
    settings = {"optimizer__schedule": "cosine", "steps": 6}

    def changed(**changes: object) -> TrainConfig:
        return tiny_config(tmp_path / "clips", tmp_path / "run", **(settings | changes))

    claim_run_folder(changed())
    with pytest.raises(UserError, match=r"until step 6 there and 9 here; .*decay_steps 6"):
        check_run_folder(changed(steps=9))
    check_run_folder(changed(steps=9, optimizer__decay_steps=6))
    claim_run_folder(changed(steps=9, optimizer__decay_steps=6))
    check_run_folder(changed(steps=12, optimizer__decay_steps=6))
    with pytest.raises(UserError, match="until step 6 there and 9 here"):
        check_run_folder(changed(steps=9))


def test_a_rate_taken_out_is_another_setting(tmp_path: Path) -> None:
    there = tiny_config(tmp_path, tmp_path / "run", optimizer__lr_scales={"mid_block": 2.0})
    claim_run_folder(there)
    check_run_folder(there)
    with pytest.raises(UserError, match=r"lr_scales\.mid_block is 2\.0 there and unset here"):
        check_run_folder(tiny_config(tmp_path, tmp_path / "run"))


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


def test_settings_of_another_version_and_keys_that_are_not_known(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    claim_run_folder(config)
    path = config.output / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    for changes, problem in (
        ({"version": 2}, "their version is 2 there and 1 here"),
        ({"sampler": "new"}, "sampler is new there and unset here"),
    ):
        path.write_text(yaml.safe_dump(settings | changes))
        with pytest.raises(UserError, match=problem):
            check_run_folder(config)
    with pytest.raises(UserError, match="version=2: these settings are of a newer lisa_video"):
        replace(config, version=2)


@pytest.mark.parametrize(
    ("there", "here"),
    [("all", {"stride": 2}), ({"stride": 2}, "all"), ({"stride": 2}, {"even": 2})],
)
def test_a_section_in_the_place_of_a_value_is_a_change(
    tmp_path: Path, there: Any, here: Any
) -> None:
    old, new = (
        tiny_config(tmp_path / "clips", tmp_path / "run", side_network__injection=injection)
        for injection in (there, here)
    )
    claim_run_folder(old)
    check_run_folder(old)
    with pytest.raises(UserError, match="other settings"):
        check_run_folder(new)


def test_what_was_allowed_once_is_not_kept(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run", allow_changed="data, code")
    assert config.allowed_changes == {"data", "code"}
    claim_run_folder(config)
    settings = yaml.safe_load((config.output / "config.yaml").read_text())
    assert settings["allow_changed"] == ""
    with pytest.raises(UserError, match="allow_changed: unknown 'date', known: data, code"):
        replace(config, allow_changed="code,date")


def test_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    with held_run_folder(config):
        said = tmp_path / "said.txt"
        assert forks.run(lambda: held_run_folder(config).__enter__(), said) == 2
        assert "run: another run is writing here" in said.read_text()
        assert len(said.read_text().splitlines()) == 1
    with held_run_folder(config):
        pass


def test_a_folder_is_free_once_its_process_was_killed(tmp_path: Path) -> None:
    """At once, although a process that it started, as for reading, still lives."""
    config = tiny_config(tmp_path / "clips", tmp_path / "run")
    reading, writing = os.pipe()

    def hold() -> None:
        with held_run_folder(config):
            child = os.fork()
            if child:
                os.write(writing, f"{child}\n".encode())
            signal.pause()

    holder = forks.start(hold, tmp_path / "said.txt")
    child = int(os.read(reading, 100))
    try:
        os.kill(holder, signal.SIGKILL)
        forks.end(holder)
        with held_run_folder(config):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
