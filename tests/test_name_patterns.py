"""What a pattern over names stands for."""

import pytest

from lisa_video.errors import UserError
from lisa_video.name_patterns import matched, matches

NAMES = [
    "pose_encoder.conv_in.weight",
    "down_blocks.0.attentions.0.to_q.weight",
    "down_blocks.0.motion_modules.0.to_q.weight",
    "down_blocks.10.motion_modules.0.to_q.bias",
]


@pytest.mark.parametrize(
    ("pattern", "indices"),
    [
        ("pose_encoder", [0]),
        ("motion_modules", [2, 3]),
        ("down_blocks.0", [1, 2]),
        ("down_blocks.1*", [3]),
        ("down_blocks.*.to_q", [1, 2, 3]),
        ("bias", [3]),
        ("*", [0, 1, 2, 3]),
    ],
)
def test_pattern_stands_for_whole_parts(pattern: str, indices: list[int]) -> None:
    assert matched(pattern, NAMES, "key") == [NAMES[index] for index in indices]


@pytest.mark.parametrize("pattern", ["down_block", "own_blocks", "blocks.0", "to_q.down_blocks"])
def test_parts_of_parts_are_nothing(pattern: str) -> None:
    assert not any(matches(pattern, name) for name in NAMES)


def test_a_pattern_for_nothing_is_told_the_nearest_and_the_top() -> None:
    with pytest.raises(UserError) as caught:
        matched("motion_module", NAMES, "side_network.freeze")
    assert str(caught.value) == (
        "side_network.freeze: 'motion_module' matches nothing, nearest is 'motion_modules'; "
        "there is pose_encoder, down_blocks"
    )
    with pytest.raises(UserError, match=r"nearest is 'down_blocks\.0'"):
        matched("down_block.0", NAMES, "key")
    with pytest.raises(UserError, match="'' matches nothing"):
        matched("", NAMES, "key")
