"""The kinds of condition. Imports nothing heavy."""

from typing import Literal, get_args

ConditionKind = Literal["pose", "body", "upper_body", "lower_body", "hands", "edges"]
"""What a side network is steered by: whole skeletons, a part of them, or the edges of a video."""

CONDITION_KINDS: tuple[ConditionKind, ...] = get_args(ConditionKind)
