"""Kinds of condition: what is drawn, and that training is steered by it.

F frames, H W pixels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_video.condition_config import CONDITION_KINDS, ConditionKind
from lisa_video.conditions import draw_edges, draw_poses, frame_weights, joints, subset
from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.poses import PoseSequence
from lisa_video.poses.skeletons import OPENPOSE_18, SKELETONS
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from tests.tiny import tiny_backbone
from tests.training.runs import SIZE, tiny_config, write_clips

SKELETON_OF = {len(names): name for name, names in SKELETONS.items()}


def poses(joint_count: int) -> PoseSequence:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(4, 28, (3, 1, joint_count, 3)).astype(np.float32)
    keypoints[..., 2] = rng.uniform(0.2, 1, keypoints.shape[:-1])
    return PoseSequence(keypoints, 32, 32, fps=8.0, skeleton=SKELETON_OF[joint_count])


def test_upper_and_lower_body_share_no_joint_and_make_up_the_body() -> None:
    upper, lower = joints("upper_body", 18), joints("lower_body", 18)
    assert not (upper & lower).any() and (upper | lower).all()
    assert {name for name, kept in zip(OPENPOSE_18, lower, strict=True) if kept} == {
        *("r_hip", "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle")
    }


@pytest.mark.parametrize("kind", ["body", "upper_body", "lower_body", "hands"])
def test_a_subset_draws_its_own_joints_and_no_other(kind: ConditionKind) -> None:
    whole = poses(60)
    kept = joints(kind, 60)
    assert 0 < kept.sum() < 60
    drawn = draw_poses(kind, whole)
    assert drawn.any()
    others = whole.keypoints.copy()
    others[:, :, ~kept, :2] += 3
    moved = replace(whole, keypoints=others)
    np.testing.assert_array_equal(draw_poses(kind, moved), drawn)
    assert not np.array_equal(draw_poses("pose", moved), draw_poses("pose", whole))


def test_weights_are_those_of_the_joints_that_are_shown() -> None:
    unsure = poses(60)
    unsure.keypoints[:, :, joints("hands", 60), 2] = 0
    np.testing.assert_array_equal(frame_weights("hands", unsure), np.zeros(3))
    np.testing.assert_array_equal(frame_weights("pose", unsure), unsure.frame_weights())
    np.testing.assert_array_equal(frame_weights("edges", unsure), np.ones(3))


def test_hands_of_a_skeleton_without_them_are_refused() -> None:
    with pytest.raises(UserError, match="condition=hands: a skeleton of 18 keypoints has no such"):
        subset("hands", poses(18))


def test_edges_are_where_the_brightness_steps() -> None:
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    frames[:, :, 8:] = 255
    drawn = draw_edges(frames)
    assert drawn.shape == (2, 3, 16, 16)
    assert set(np.flatnonzero(drawn[0, 0].any(axis=0))) <= {7, 8} and drawn.any()
    assert not draw_edges(np.full_like(frames, 90)).any()


def test_a_dataset_gives_the_edges_of_what_is_seen(clips: Path) -> None:
    """With and without the pixels at hand, kept in memory or not."""
    plain = ClipDataset(clips, "train", frames=4, size=(SIZE, SIZE), condition="edges")
    kept = ClipDataset(
        clips, "train", frames=4, size=(SIZE, SIZE), condition="edges", cache_in_memory=True
    )
    clip = plain[2]
    assert clip.pose_frames.any()
    np.testing.assert_array_equal(clip.pose_frames, draw_edges(clip.pixels))
    alone = plain.condition(2, plain.view(2, 0))
    np.testing.assert_array_equal(alone.pose_frames, clip.pose_frames)
    np.testing.assert_array_equal(kept[2].pose_frames, clip.pose_frames)
    np.testing.assert_array_equal(clip.frame_weights, np.ones(4))


@pytest.mark.parametrize("kind", CONDITION_KINDS)
def test_a_side_network_remembers_what_it_was_trained_on(
    kind: ConditionKind, clips: Path, tmp_path: Path
) -> None:
    encoder = ClipEncoder(tiny_backbone())
    config = tiny_config(
        clips, tmp_path / "run", data__condition=kind, steps=1, probe__every=0, objective="plain"
    )
    if kind == "hands":
        with pytest.raises(UserError, match="has no such joints"):
            train(config, encoder=encoder)
        return
    train(config, encoder=encoder)
    other = tiny_config(
        clips,
        tmp_path / "other",
        data__condition="edges" if kind != "edges" else "pose",
        side_network__init_from=config.output / "side_network",
        objective="plain",
    )
    with pytest.raises(UserError, match=f"is steered by {kind}, and not by"):
        train(other, encoder=encoder)


def test_the_condition_changes_what_is_learned(clips: Path, tmp_path: Path) -> None:
    encoder = ClipEncoder(tiny_backbone())
    ends = []
    for kind in ("pose", "lower_body", "edges"):
        config = tiny_config(
            clips, tmp_path / kind, data__condition=kind, steps=2, probe__every=0, objective="plain"
        )
        side = train(config, encoder=encoder).networks.side_network
        ends.append(side.pose_encoder.state_dict()["conv_in.weight"])
    assert not torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))
