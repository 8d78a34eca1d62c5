"""Parts of the side network that are not trained."""

from __future__ import annotations

from collections.abc import Sequence

from lisa_video.errors import UserError
from lisa_video.name_patterns import matched
from lisa_video.side_networks.base import SideNetwork

KEY = "side_network.freeze"


def freeze_parts(side: SideNetwork, patterns: Sequence[str]) -> None:
    """Let the parameters that the patterns stand for ask for no gradient.

    Raises UserError where a pattern stands for none, or where nothing would be left to train.
    """
    parameters = dict(side.named_parameters())
    for pattern in patterns:
        for name in matched(pattern, list(parameters), KEY):
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"{KEY}={list(patterns)}: freezes all of the side network")


def frozen_line(side: SideNetwork, patterns: Sequence[str]) -> str:
    """What is frozen, for the user; a weight that two patterns stand for counts for each."""
    sizes = {name: parameter.numel() for name, parameter in side.named_parameters()}
    trained = sum(p.numel() for p in side.parameters() if p.requires_grad)
    parts = [
        f"{pattern} ({_millions(sum(sizes[name] for name in matched(pattern, list(sizes), KEY)))})"
        for pattern in patterns
    ]
    whole = _millions(sum(sizes.values()))
    return (
        f"side network: trains {_millions(trained)} of {whole} weights; frozen: {', '.join(parts)}"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M"
