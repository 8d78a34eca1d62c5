"""The held-out clips of a comparison, and the detector that looks at what is generated for them."""

from __future__ import annotations

from lisa_video.comparison.config import HoldsOut
from lisa_video.condition_config import ConditionKind
from lisa_video.dataset import ClipDataset
from lisa_video.detectors import build_detector
from lisa_video.errors import UserError
from lisa_video.evaluation.held_out import HeldOutClips


def held_out_clips(
    config: HoldsOut,
    *,
    count: int | None = None,
    frames: int | None = None,
    condition: ConditionKind = "pose",
) -> HeldOutClips:
    """The first clips of the validation split, which every arm generates for: `score.clips` as
    long as those of training, where nothing else is asked for, with their `condition`.

    Raises:
        UserError: it has fewer, or the detector is unknown.
    """
    data = config.training.data
    asked = f"score.clips={config.score.clips}" if count is None else str(count)
    count = count or config.score.clips
    dataset = ClipDataset(
        data.root,
        data.validation_split,
        frames=frames or data.frames,
        stride=data.stride,
        size=data.size,
        seed=config.score.seed,
        fps=data.fps,
        condition=condition,
    )
    if len(dataset) < count:
        raise UserError(
            f"{data.root}: split '{data.validation_split}' has {len(dataset)} clips, {asked} are "
            "to be scored"
        )
    detector = build_detector(config.score.detector, weights=config.score.detector_weights)
    return HeldOutClips([dataset[index] for index in range(count)], detector)
