"""Validation while training, in whole tiny runs."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lisa_video.caching import job as caching
from lisa_video.errors import UserError
from lisa_video.packing import job as packing
from lisa_video.packing.config import PackConfig
from lisa_video.training.config import TrainConfig, ValidationConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.run_folder import read_log
from lisa_video.training.setup import check_training
from lisa_video.training.validation import METRICS, random_states_kept, write_videos
from lisa_video.video import read_video
from tests.caching.conftest import cache_config
from tests.evaluation.test_held_out import held_out_clip
from tests.tiny import tiny_checkpoint, tiny_detector
from tests.training.processes import FSDP, ZERO2, ZERO3, run_training
from tests.training.runs import tiny_config, untimed_log


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detector(tmp_path_factory.mktemp("detector"))


def validation_of(detector: Path) -> ValidationConfig:
    return ValidationConfig(
        every=2, clips=3, inference_steps=2, detector_weights=detector, videos=2
    )


def validating(clips: Path, output: Path, detector: Path, **changes: Any) -> TrainConfig:
    return tiny_config(clips, output, validation=validation_of(detector), steps=3, **changes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def from_train(config: TrainConfig, **changes: Any) -> dict[str, Any]:
    """The settings of a training, without those of a job around it."""
    return {field.name: getattr(config, field.name) for field in fields(TrainConfig)} | changes


def test_training_is_the_same_with_and_without_validation(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, detector: Path
) -> None:
    """Bit for bit, also where modules draw from the global generators; and scores repeat."""
    with_validation = validating(clips, tmp_path / "with", detector)
    states = [
        train(config, encoder=encoder)
        for config in (
            with_validation,
            tiny_config(clips, tmp_path / "without", steps=3),
            validating(clips, tmp_path / "again", detector),
        )
    ]
    for name, value in states[0].networks.side_network.state_dict().items():
        assert torch.equal(value, states[1].networks.side_network.state_dict()[name])
    rows, plain, again = (untimed_log(tmp_path / name) for name in ("with", "without", "again"))
    assert rows == again
    assert [row["step"] for row in rows if "validation/pck@0.1" in row] == [0, 2, 3]
    kept = [{k: v for k, v in row.items() if not k.startswith("validation/")} for row in rows]
    assert kept == plain


def test_what_a_validation_leaves_behind(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, detector: Path
) -> None:
    config = validating(clips, tmp_path, detector)
    train(config, encoder=encoder)
    rows = [row for row in read_log(tmp_path) if "validation/seconds" in row]
    ceilings = {tuple(row[f"validation/ceiling_{name}"] for name in METRICS) for row in rows}
    assert len(rows) == 3 and len(ceilings) == 1
    for step in (0, 2, 3):
        videos = sorted((tmp_path / "validation" / f"step_{step:08d}").iterdir())
        assert [video.name for video in videos] == ["00-clip_7.mp4", "01-clip_8.mp4"]
    assert len(read_video(videos[0]).frames) == config.data.frames


def test_a_new_step_0_network_generates_what_the_backbone_alone_does(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, detector: Path
) -> None:
    """Zero projections add nothing: both objectives begin with the same score."""
    rows = []
    for objective in ("plain", "lisa"):
        config = validating(clips, tmp_path / objective, detector, objective=objective)
        train(config, encoder=encoder)
        rows.append(read_log(config.output)[0])
    assert rows[0]["validation/keypoint_distance"] == rows[1]["validation/keypoint_distance"]


def scores(output: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name.startswith("validation/")}
        for row in untimed_log(output)
    ]


def test_from_a_cache_no_text_encoder_is_loaded_and_scores_stay(
    clips: Path, checkpoint: Path, tmp_path: Path, detector: Path
) -> None:
    """Neither is the VAE before it decodes, and it leaves the device again."""
    cached = cache_config(clips, tmp_path, checkpoint, data__cache_in_memory=False)
    caching.run(cached)
    values = from_train(cached, validation=validation_of(detector), steps=2)
    from_cache = TrainConfig(**values)
    data = replace(from_cache.data, cache=None)
    from_video = replace(from_cache, data=data, output=tmp_path / "from_video")
    train(from_video)
    state = train(from_cache)
    assert scores(from_cache.output) == scores(from_video.output)
    encoders = state.backbone.encoders
    assert encoders["vae"].loaded and not encoders["text_encoder"].loaded

    # More clips than the probe reads: their captions are encoded once.
    more = replace(from_cache, output=tmp_path / "more", probe=replace(cached.probe, clips=2))
    assert train(more).backbone.encoders["text_encoder"].loaded
    assert scores(more.output) == scores(from_video.output)


def test_packed_encodings_are_decoded_where_there_are_no_videos(
    clips: Path, checkpoint: Path, tmp_path: Path, detector: Path
) -> None:
    cached = cache_config(clips, tmp_path, checkpoint)
    caching.run(cached)
    packing.run(PackConfig(**from_train(cached), pack_to=str(tmp_path / "packed")))
    data = replace(cached.data, cache=None, root=Path(), shards=str(tmp_path / "packed"))
    values = from_train(cached, data=data, validation=validation_of(detector), steps=2)
    config = TrainConfig(**values)
    train(config)
    rows = [row for row in scores(config.output) if row]
    assert len(rows) == 2 and len({row["validation/ceiling_pck@0.2"] for row in rows}) == 1
    assert (config.output / "validation" / "step_00000002" / "00-clip_7.mp4").is_file()
    few = replace(config, output=tmp_path / "few", probe=replace(config.probe, clips=2))
    with pytest.raises(UserError, match=r"validation\.clips=3: of the packed encodings 2 are"):
        check_training(few)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "environment"),
    [
        (1, {}),
        (3, {}),
        (3, FSDP),
        (3, FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false"}),
        (3, ZERO2),
        (3, ZERO3),
    ],
    ids=["ddp_few", "ddp", "fsdp2", "fsdp2_gathered", "zero2", "zero3"],
)
def test_two_processes_share_the_clips(
    clips: Path,
    checkpoint: Path,
    tmp_path: Path,
    detector: Path,
    count: int,
    environment: dict[str, str],
) -> None:
    """With fewer clips than processes, and with one too many; neither waits for ever. The average is
    shown, as it is then, with weights large enough to be seen."""
    if "ACCELERATE_USE_DEEPSPEED" in environment:
        pytest.importorskip("deepspeed")
    found = {}
    for processes in (1, 2):
        config = tiny_config(
            clips,
            tmp_path / f"run_{processes}",
            str(checkpoint),
            validation=replace(validation_of(detector), clips=count, videos=1),
            steps=4,
            optimizer__lr=0.1,
            ema__decay=0.5,
            data__batch_size=4 // processes,
            alignment__frame_weighting=False,
            pose_dropout=0.0,
        )
        run_training(config, processes, **(environment if processes > 1 else {}))
        found[processes] = [
            row["validation/keypoint_distance"] or 0.0
            for row in read_log(config.output)
            if "validation/keypoint_distance" in row
        ]
        assert len(list((config.output / "validation").glob("*/*.mp4"))) == 3
    assert found[2] == pytest.approx(found[1], abs=0.02) and len(set(found[1])) > 1


def test_global_generators_are_left_alone() -> None:
    def drawn() -> list[float]:
        return [torch.rand(1).item(), np.random.rand(), nn.init.normal_(torch.empty(1)).item()]

    torch.manual_seed(3)
    np.random.seed(3)
    expected = drawn()
    torch.manual_seed(3)
    np.random.seed(3)
    with random_states_kept(torch.device("cpu")):
        torch.manual_seed(8)
        np.random.seed(8)
        drawn()
    assert drawn() == expected


def test_ids_that_no_file_can_have_become_names(tmp_path: Path) -> None:
    clips = [held_out_clip(0), held_out_clip(1)]
    for clip, name in zip(clips, ("../../etc/<b>", "ü" * 300), strict=True):
        object.__setattr__(clip, "id", name)
    generated = np.stack([clip.pixels for clip in clips])
    videos = write_videos(tmp_path / "step", clips, generated)
    assert [video.path.name for video in videos] == ["00-_etc_b_.mp4", "01-_.mp4"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "00-_etc_b_.mp4",
        "01-_.mp4",
        "step",
    ]
    # A repeated step takes the place of the earlier one.
    assert len(write_videos(tmp_path / "step", clips[:1], generated)) == 1
    assert len(list((tmp_path / "step").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": 99}, r"validation\.clips=99: .* has 3 clips in split 'validation'"),
        ({"detector": "other"}, "unknown pose detector 'other'"),
        ({"detector_weights": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_validation_that_cannot_be(
    clips: Path, encoder: ClipEncoder, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    settings = ValidationConfig(**{"every": 1, "clips": 3, **change})
    config = tiny_config(clips, tmp_path / "run", validation=settings)
    with pytest.raises(UserError, match=message):
        train(config, encoder=encoder)
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_settings_that_cannot_be() -> None:
    for change in ({"every": -1}, {"clips": 0}, {"inference_steps": 0}, {"videos": -1}):
        with pytest.raises(UserError, match=f"validation.{next(iter(change))}="):
            ValidationConfig(**change)
