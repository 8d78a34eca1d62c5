"""Settings refuse what makes no sense, and name the key."""

from pathlib import Path
from typing import Any

import pytest

from lisa_video.augmentation_config import AugmentationConfig
from lisa_video.errors import UserError
from lisa_video.training.config import (
    AlignmentConfig,
    BackboneConfig,
    DataConfig,
    EmaConfig,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    ProbeConfig,
    SideNetworkConfig,
    TimestepConfig,
    TrainConfig,
)


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "backbone": BackboneConfig("backbone"),
        "data": DataConfig(Path("clips")),
        "output": Path("run"),
    }
    return TrainConfig(**(settings | changes))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: BackboneConfig(""), "backbone.path"),
        (lambda: DataConfig(Path(), frames=0), "data.frames"),
        (lambda: DataConfig(Path(), batch_size=0), "data.batch_size"),
        (lambda: DataConfig(Path(), size=(64, 0)), "data.size"),
        (lambda: DataConfig(Path(), stride=3, max_stride=2), r"data\.max_stride=2"),
        (lambda: DataConfig(Path(), fps=0.0), r"data\.fps=0\.0"),
        (lambda: DataConfig(Path(), views=-1), r"data\.views=-1"),
        (lambda: DataConfig(Path(), buckets=[(5, 8, 8), (5, 8, 0)]), r"data\.buckets\[1\]"),
        (lambda: DataConfig(Path(), buckets=[(5, 8, 8)] * 2), r"buckets\[1\].* twice"),
        (lambda: AugmentationConfig(flip=1.5), r"data\.augmentation\.flip=1\.5"),
        (lambda: AugmentationConfig(frame_dropout=-0.1), "frame_dropout"),
        (lambda: AugmentationConfig(crop_shift=float("nan")), "crop_shift"),
        (lambda: AugmentationConfig(crop_scale=(0.9, 0.5)), "data.augmentation.crop_scale"),
        (lambda: AugmentationConfig(crop_scale=(0.0, 0.5)), "crop_scale"),
        (lambda: AugmentationConfig(crop_scale=(0.5, 1.1)), "crop_scale"),
        (lambda: SideNetworkConfig(injection=[]), "side_network.injection"),
        (lambda: AlignmentConfig(weight=0.0), "alignment.weight"),
        (lambda: AlignmentConfig(weight=float("nan")), "alignment.weight"),
        (lambda: AlignmentConfig(every=0), r"alignment\.every=0"),
        (lambda: AlignmentConfig(fraction=0.0), r"alignment\.fraction=0\.0"),
        (lambda: AlignmentConfig(fraction=1.5), r"alignment\.fraction=1\.5"),
        (lambda: AlignmentConfig(tap=[]), r"alignment\.tap=\[\]"),
        (lambda: AlignmentConfig(tap=["mid", "mid"]), r"alignment\.tap=.* each once"),
        (lambda: AlignmentConfig(schedule="until"), r"schedule=until: needs .*alignment\.until"),
        (lambda: AlignmentConfig(schedule="cosine"), r"schedule=cosine: needs"),
        (lambda: AlignmentConfig(until=5), r"until=5: has no effect with .*constant"),
        (lambda: AlignmentConfig(schedule="until", until=0), r"alignment\.until=0"),
        (lambda: AlignmentConfig(schedule="until", until=3, every=4), r"every=4: no step up to"),
        (lambda: AlignmentConfig(gamma=3.0), r"alignment\.gamma=3\.0: has no effect"),
        (lambda: LossConfig(gamma=3.0), r"loss\.gamma=3\.0: has no effect .*none"),
        (lambda: LossConfig(weighting="min_snr", gamma=0.0), r"loss\.gamma=0\.0"),
        (lambda: TimestepConfig(logit_std=0.5), "no effect with timesteps.sampling=uniform"),
        (lambda: TimestepConfig(sampling="logit_normal", logit_std=0.0), "logit_std=0"),
        (
            lambda: TimestepConfig(sampling="logit_normal", logit_mean=float("nan")),
            "logit_mean=nan",
        ),
        (lambda: TimestepConfig(shift_at=(5, 64, 0)), r"timesteps\.shift_at=\[5, 64, 0\]"),
        (
            lambda: config(steps=3, alignment=AlignmentConfig(every=4)),
            r"alignment\.every=4: none of the 3 steps",
        ),
        (
            lambda: config(
                data=DataConfig(Path(), batch_size=1), alignment=AlignmentConfig(fraction=0.5)
            ),
            r"alignment\.fraction=0\.5: is all of a batch of 1",
        ),
        (lambda: OptimizerConfig(lr=-1e-5), "optimizer.lr"),
        (lambda: OptimizerConfig(lr=float("inf")), "optimizer.lr"),
        (lambda: OptimizerConfig(betas=(0.9, 1.0)), "optimizer.betas"),
        (lambda: OptimizerConfig(max_grad_norm=0), "optimizer.max_grad_norm"),
        (lambda: OptimizerConfig(gradient_accumulation_steps=0), "gradient_accumulation_steps"),
        (lambda: OptimizerConfig(lr_scales={"mid": 0.0}), r"optimizer\.lr_scales\.mid=0"),
        (lambda: OptimizerConfig(min_lr_share=1.5, schedule="cosine"), r"min_lr_share=1\.5"),
        (lambda: OptimizerConfig(cycles=0, schedule="cosine"), "optimizer.cycles"),
        (lambda: OptimizerConfig(cycles=2, schedule="linear"), r"cycles=2.* linear .* cosine"),
        (lambda: OptimizerConfig(power=2.0), r"power=2\.0.* constant .* polynomial"),
        (lambda: OptimizerConfig(decay_steps=5), "decay_steps=5.* constant"),
        (lambda: OptimizerConfig(min_lr_share=0.1), r"min_lr_share=0\.1.* constant"),
        (lambda: EmaConfig(decay=1.0), "ema.decay"),
        (lambda: EmaConfig(every=0), "ema.every"),
        (lambda: EmaConfig(sigma_rel=0.3), r"ema\.sigma_rel=0\.3"),
        (lambda: EmaConfig(decay=0.0, sigma_rel=0.1), "ema: decay 0 .* sigma_rel"),
        (lambda: LoraConfig(rank=-1), "lora.rank"),
        (lambda: LoraConfig(rank=2, alpha=0), "lora.alpha"),
        (lambda: LoraConfig(rank=2, targets=[]), "lora.targets"),
        (lambda: LoraConfig(lr_scale=0.0), "lora.lr_scale"),
        (lambda: TimestepConfig(shift=0.0), "timesteps.shift"),
        (lambda: ProbeConfig(clips=1), "probe.clips"),
        (lambda: config(steps=0), "steps"),
        (lambda: config(seed=-1), "seed"),
        (lambda: config(text_dropout=1.5), "text_dropout"),
        (lambda: config(pose_dropout=-0.1), "pose_dropout"),
    ],
)
def test_refusals_name_the_key(make: Any, key: str) -> None:
    with pytest.raises(UserError, match=key) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_falling_learning_rate_needs_steps_after_warm_up() -> None:
    falling = OptimizerConfig(schedule="linear", warmup_steps=10)
    config(steps=11, optimizer=falling)
    with pytest.raises(UserError, match=r"optimizer\.warmup_steps=10.* 10 steps leave no room"):
        config(steps=10, optimizer=falling)
    short = OptimizerConfig(schedule="linear", warmup_steps=10, decay_steps=5)
    with pytest.raises(UserError, match="5 steps leave no room"):
        config(optimizer=short)


def test_the_tap_must_be_an_injection_point_under_lisa() -> None:
    subset = SideNetworkConfig(injection=["down_1", "mid"])
    with pytest.raises(UserError, match=r"alignment\.tap=down_5.*down_1, mid"):
        config(side_network=subset)
    config(side_network=subset, objective="plain")
    config(side_network=subset, alignment=AlignmentConfig(tap="mid"))
    with pytest.raises(UserError, match=r"alignment\.tap=down_2.*down_1, mid"):
        config(side_network=subset, alignment=AlignmentConfig(tap=["mid", "down_2"]))
