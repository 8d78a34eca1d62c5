"""Training under DeepSpeed: what it cannot do, and what it leaves of a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lisa_video.training.zero as zero
from lisa_video.errors import UserError
from lisa_video.training.acceleration import build_accelerator
from lisa_video.training.checkpoint import latest_checkpoint, load_state
from lisa_video.training.config import AlignmentConfig
from lisa_video.training.run_folder import read_log
from tests.tiny import tiny_checkpoint
from tests.training.processes import ZERO2, ZERO3, run_training
from tests.training.runs import tiny_config, write_clips

TWO = {"WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        (TWO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, {}, "zero_stage=1: give 2 or 3"),
        (TWO | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, {}, "config_file is not read"),
        (TWO | {"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, {}, r"fsdp2\.yaml"),
        ({"WORLD_SIZE": "1"}, {}, "one process"),
        (TWO, {"mixed_precision": "fp16"}, "mixed_precision=fp16"),
        (TWO, {"optimizer__kind": "adafactor"}, r"optimizer\.kind=adafactor"),
        (TWO, {"optimizer__kind": "adamw_8bit"}, r"optimizer\.kind=adamw_8bit"),
        (TWO, {"lora__rank": 4}, r"lora\.rank 0"),
        (TWO, {"alignment": AlignmentConfig(tap="down_1", every=2)}, r"alignment\.every"),
    ],
)
def test_what_it_cannot_train_is_refused(
    environment: dict[str, str],
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: name)
    for name, value in (ZERO2 | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        build_accelerator(tiny_config(tmp_path, tmp_path / "run", **changes))


def test_it_has_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    for name, value in ZERO2.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"pip install 'lisa_video\[deepspeed\]'"):
        build_accelerator(tiny_config(tmp_path, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ZERO2, ZERO3], ids=["zero2", "zero3"])
def test_two_processes_leave_what_one_leaves(environment: dict[str, str], tmp_path: Path) -> None:
    """Losses, norms, probes, and the optimizer's state, in groups of their own settings; and they go
    on from their own checkpoint."""
    pytest.importorskip("deepspeed")
    clips, backbone = write_clips(tmp_path / "clips"), tiny_checkpoint(tmp_path / "backbone")
    one, two = (
        tiny_config(
            clips,
            tmp_path / f"run_{count}",
            str(backbone),
            steps=3,
            data__batch_size=4 // count,
            probe__every=2,
            optimizer__decay_norms=False,
            optimizer__max_grad_norm=0.05,
            gradient_checkpointing=True,
        )
        for count in (1, 2)
    )
    run_training(one, 1)
    run_training(replace(two, steps=1), 2, **environment)
    run_training(two, 2, **environment)
    for name in ("loss", "grad_norm"):
        expected, found = (
            [row[name] for row in read_log(run.output) if name in row] for run in (one, two)
        )
        assert len(found) == 3
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    last = [read_log(run.output)[-1]["probe/true"] for run in (one, two)]
    np.testing.assert_allclose(last[1], last[0], rtol=1e-5)
    expected, found = (load_state(_last(run.output)).optimizer["state"] for run in (one, two))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def _last(output: Path) -> Path:
    checkpoint = latest_checkpoint(output)
    assert checkpoint is not None
    return checkpoint
