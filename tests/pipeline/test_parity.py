"""Without control, what diffusers' own pipelines make of the same seed, for every backbone."""

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from lisa_video.backbones.base import VideoBackbone
from lisa_video.long_video.settings import WindowSettings
from lisa_video.pipeline import PoseToVideoPipeline
from tests.tiny import animatediff_pipeline, awakened, tiny_backbone, zero_snr_scheduler
from tests.tiny_cogvideox import cogvideox_pipeline, cogvideox_scheduler, tiny_cogvideox
from tests.tiny_wan import TOKENS, tiny_wan, wan_pipeline

REFERENCES = {
    "animatediff": animatediff_pipeline,
    "wan": wan_pipeline,
    "cogvideox": cogvideox_pipeline,
}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
COGVIDEOX = dict(cogvideox_scheduler().config)
CASES = [
    (tiny_backbone, zero_snr_scheduler(), 5),
    (tiny_backbone, DDIMScheduler(beta_schedule="linear", clip_sample=False), 5),
    (tiny_backbone, EulerDiscreteScheduler(beta_schedule="linear"), 5),
    (tiny_backbone, EulerAncestralDiscreteScheduler(), 5),
    (tiny_backbone, DPMSolverMultistepScheduler(use_karras_sigmas=True), 5),
    (tiny_backbone, UniPCMultistepScheduler(), 5),
    (tiny_backbone, HeunDiscreteScheduler(), 5),
    (tiny_backbone, LCMScheduler(), 5),
    (tiny_backbone, PNDMScheduler(skip_prk_steps=True), 5),
    (tiny_wan, FlowMatchEulerDiscreteScheduler(shift=3.0), 9),
    (tiny_wan, FlowMatchHeunDiscreteScheduler(shift=3.0), 9),
    (tiny_wan, UniPCMultistepScheduler(**FLOW), 9),
    (tiny_wan, DPMSolverMultistepScheduler(**FLOW), 9),
    (tiny_cogvideox, CogVideoXDDIMScheduler.from_config(COGVIDEOX), 9),
    (tiny_cogvideox, CogVideoXDPMScheduler.from_config(COGVIDEOX), 9),
]


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize(
    ("make", "scheduler", "frames"),
    CASES,
    ids=lambda value: type(value).__name__ if isinstance(value, SchedulerMixin) else None,
)
def test_without_control_it_is_diffusers_own_pipeline(
    make: object, scheduler: SchedulerMixin, frames: int, guidance_scale: float
) -> None:
    backbone: VideoBackbone = make(num_layers=2) if make is not tiny_backbone else make()
    reference = REFERENCES[backbone.kind](backbone)
    pipeline = PoseToVideoPipeline.from_backbone(backbone, awakened(backbone.new_side_network()))
    reference.scheduler, pipeline.scheduler = (type(scheduler).from_config(scheduler.config),) * 2
    for each in (reference, pipeline):
        each.set_progress_bar_config(disable=True)
    width, height = backbone.frame_size or (32, 16)
    shared = {
        "prompt": "a man",
        "negative_prompt": "a house",
        "guidance_scale": guidance_scale,
        "num_inference_steps": 4,
        "height": height,
        "width": width,
    }
    length = {} if backbone.kind == "animatediff" else {"max_sequence_length": TOKENS}
    expected = reference(
        **shared,
        **length,
        num_frames=frames,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).frames
    poses = torch.rand(1, frames, 3, height, width)
    for window in (None, WindowSettings(frames, 1)):
        generator = torch.Generator().manual_seed(3)
        got = pipeline(
            **shared, pose_frames=poses, window=window, control_scale=0, generator=generator
        ).frames
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    steered = pipeline(**shared, pose_frames=poses, generator=torch.Generator().manual_seed(3))
    assert not np.allclose(steered.frames, expected, atol=1e-3)
