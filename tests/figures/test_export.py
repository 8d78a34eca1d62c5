"""The exported set: a dataset that opens, with the rendered poses, and nothing half-made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.figures.config import FiguresConfig, FiguresDatasetConfig
from lisa_video.figures.dataset import render_clips
from lisa_video.figures.export import check_export, export_figures
from lisa_video.manifest import load_manifest

FIGURES = FiguresConfig(clips=3, frames=4, size=64, workers=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, motion_folder: Path) -> Path:
    output = tmp_path_factory.mktemp("figures") / "set"
    config = FiguresDatasetConfig(output=output, figures=FIGURES, validation_clips=2)
    return export_figures(config, motion_folder)


@pytest.mark.parametrize(("split", "held_out", "clips"), [("train", 0, 3), ("validation", 1, 2)])
def test_a_split_holds_its_renders(
    exported: Path, motion_folder: Path, split: str, held_out: int, clips: int
) -> None:
    dataset = ClipDataset(exported, split, frames=FIGURES.frames, size=(64, 64))
    rendered = list(
        render_clips(replace(FIGURES, clips=clips), motion_folder, held_out=bool(held_out))
    )
    for clip, truth in zip((dataset[i] for i in range(len(dataset))), rendered, strict=True):
        present = truth.keypoints[..., 2] > 0
        np.testing.assert_array_equal(clip.poses.keypoints[present], truth.keypoints[present])
        assert not clip.poses.keypoints[~present].any()
        # H.264 in yuv420p halves the resolution of colour: near, never equal.
        assert np.abs(clip.pixels.astype(int) - truth.frames).mean() < 3
        assert clip.caption == truth.caption
        assert (clip.poses.fps, clip.poses.detector) == (FIGURES.fps, "ground-truth")


def test_without_validation_clips_no_recording_need_be_held_out(
    tmp_path: Path, motion_folder: Path
) -> None:
    figures = replace(FIGURES, clips=1, held_out=[])
    config = FiguresDatasetConfig(tmp_path / "set", figures, validation_clips=0)
    assert [e.split for e in load_manifest(export_figures(config, motion_folder))] == ["train"]
    with pytest.raises(UserError, match="held_out is empty"):
        replace(config, validation_clips=1)


def test_a_folder_in_use_is_refused(exported: Path) -> None:
    before = (exported / "manifest.jsonl").read_bytes()
    with pytest.raises(UserError, match="not empty"):
        check_export(FiguresDatasetConfig(output=exported))
    assert (exported / "manifest.jsonl").read_bytes() == before


def test_an_unknown_recording_leaves_no_folder(tmp_path: Path, motion_folder: Path) -> None:
    figures = replace(FIGURES, held_out=["tango"])
    config = FiguresDatasetConfig(output=tmp_path / "set", figures=figures)
    with pytest.raises(UserError, match=r"\['tango'\].*known"):
        export_figures(config, motion_folder)
    assert not config.output.exists()
