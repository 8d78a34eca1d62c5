"""The model card of a backbone trained on the figures: data, command, losses and samples, from the run itself."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, DiffusionPipeline, WanPipeline
from PIL import Image
from tqdm import tqdm

from lisa_video.figures.config import FiguresConfig, PretrainConfig, PretrainWanConfig

SAMPLE_PROMPTS = (
    "a tall person in a red shirt and blue trousers walking, white wall, side view",
    "a slim person in a yellow shirt and black shorts dancing, green wall, front view",
    "a sturdy person in a white shirt and purple trousers doing jumping jacks, grey wall, front view",
    "a short person in a green shirt and orange trousers squatting, blue wall, side view",
    "a tall person in a pink shirt and grey trousers waving, black wall, front view",
    "a slim person in a blue shirt and red trousers doing a cartwheel, yellow wall, side view",
)
_GUIDANCE, _STEPS, _SEEDS = 2.0, 25, (0, 1)


def write_model_card(config: PretrainConfig, folder: Path) -> None:
    """Write README.md and samples.png into the checkpoint's folder."""
    pipeline = AnimateDiffPipeline.from_pretrained(folder)
    draw_samples(pipeline, config.unet.frames, config.figures.size, folder / "samples.png")
    (folder / "README.md").write_text(_card(config))


def write_wan_model_card(config: PretrainWanConfig, folder: Path) -> None:
    """Write README.md and samples.png into the Wan checkpoint's folder."""
    pipeline = WanPipeline.from_pretrained(folder)
    draw_samples(pipeline, config.transformer.frames, config.figures.size, folder / "samples.png")
    (folder / "README.md").write_text(_wan_card(config))


def draw_samples(pipeline: DiffusionPipeline, frames: int, size: int, path: Path) -> None:
    """Write a PNG with one row per prompt; the clips of both seeds side by side, in time order."""
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for prompt in tqdm(SAMPLE_PROMPTS, desc="samples", unit="clip"):
        clips = pipeline(
            [prompt] * len(_SEEDS),
            num_frames=frames,
            height=size,
            width=size,
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in _SEEDS],
            output_type="np",
        ).frames
        rows.append(np.concatenate([frame for clip in clips for frame in clip], axis=1))
    sheet = (np.concatenate(rows) * 255).round().astype(np.uint8)
    Image.fromarray(sheet).save(path)


def _last_losses(path: Path, parts: int = 1) -> str:
    """Mean of the logged losses in the last `parts` tenths of the steps, tenth by tenth."""
    logged = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    tenths = np.array_split(logged, min(10, len(logged)))[-parts:]
    return ", ".join(f"{losses.mean():.4f}" for losses in tenths)


def _card(config: PretrainConfig) -> str:
    unet, vae, figures = config.unet, config.vae, config.figures
    vae_loss = _last_losses(config.output / "vae.jsonl")
    unet_losses = _last_losses(config.output / "unet.jsonl", parts=4)
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# Figures: a small AnimateDiff backbone

A complete `AnimateDiffPipeline` checkpoint for {figures.size}x{figures.size} video of articulated figures, trained from nothing
by this repository. It is the default main network of lisa_video's demo and tests; it is no model of real people.

```python
from diffusers import AnimateDiffPipeline, DiffusionPipeline, WanPipeline

pipeline = AnimateDiffPipeline.from_pretrained("data/embedded/animatediff/backbone")
video = pipeline(
    "{SAMPLE_PROMPTS[0]}",
    num_frames={unet.frames},
    height={figures.size},
    width={figures.size},
    guidance_scale={_GUIDANCE},
).frames[0]
```

{_data(figures)}
## Training
`python pipelines/pretrain.py --config configs/animatediff/pretrain.yaml`, seed {config.seed}, CPU ({platform.machine()}), torch {version("torch")},
diffusers {version("diffusers")}.

| part | steps | batch | mean loss per tenth of the steps, up to the last |
| --- | --- | --- | --- |
| `AutoencoderKL`, {vae.latent_channels} channels, /{2 ** (len(vae.channels) - 1)} | {vae.steps} | {vae.batch_size} frames | {vae_loss} (squared error of pixels in [-1, 1] + 0.1 absolute error + {vae.kl_weight:g} KL) |
| `UNetMotionModel` {tuple(unet.channels)} and `CLIPTextModel` | {unet.image_steps} on single frames, then {unet.video_steps} | {unet.batch_size} clips x {unet.frames} frames | {unet_losses} (v-prediction, zero terminal SNR, timestep shift {unet.timestep_shift:g}) |

AdamW, warm-up and cosine; captions dropped with probability {unet.text_dropout:g} for classifier-free guidance; the averaged weights (decay
{unet.ema:g}) are the ones saved. Training clips have {unet.frames} frames; the motion modules take up to 32.

{_samples("DDIM")}"""


def _wan_card(config: PretrainWanConfig) -> str:
    transformer, vae, figures = config.transformer, config.vae, config.figures
    vae_loss = _last_losses(config.output / "vae.jsonl")
    losses = _last_losses(config.output / "transformer.jsonl", parts=4)
    width = transformer.heads * transformer.head_width
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# Figures: a small Wan backbone

A complete `WanPipeline` checkpoint for {figures.size}x{figures.size} video of articulated figures, trained from nothing by this repository. It is the
video-transformer main network of lisa_video's demo and tests; it is no model of real people.

```python
from diffusers import WanPipeline

pipeline = WanPipeline.from_pretrained("data/embedded/wan/backbone")
video = pipeline(
    "{SAMPLE_PROMPTS[0]}",
    num_frames={transformer.frames},
    height={figures.size},
    width={figures.size},
    guidance_scale={_GUIDANCE},
).frames[0]
```

{_data(figures)}
## Training
`python pipelines/pretrain_wan.py --config configs/wan/pretrain.yaml`, seed {config.seed}, CPU ({platform.machine()}), torch {version("torch")}, diffusers
{version("diffusers")}.

| part | steps | batch | mean loss per tenth of the steps, up to the last |
| --- | --- | --- | --- |
| `AutoencoderKLWan`, {vae.latent_channels} channels, /4 in space and time | {vae.image_steps} on {vae.images} single frames, then {vae.video_steps} | {vae.batch_size} clips x {vae.frames} frames | {vae_loss} (squared error of pixels in [-1, 1] + 0.1 absolute error + {vae.kl_weight:g} KL) |
| `WanTransformer3DModel`, {transformer.layers} blocks of width {width}, and `UMT5EncoderModel` | {transformer.image_steps} on single latent frames, then {transformer.video_steps} | {transformer.batch_size} clips x {transformer.frames} frames | {losses} (flow matching, timestep shift {transformer.timestep_shift:g}) |

Muon for the matrices of the blocks, AdamW for all else, warm-up and cosine; captions dropped with probability {transformer.text_dropout:g} for
classifier-free guidance; the averaged weights (decay {transformer.ema:g}) are the ones saved. The VAE's clips weigh errors up to {1 + vae.motion_weight:g} times
where a pixel moves. Training clips have {transformer.frames} frames; captions were padded to {" or ".join(map(str, sorted(set(transformer.text_tokens))))} tokens.

{_samples("Euler")}"""


def _data(figures: FiguresConfig) -> str:
    return f"""## Data
{figures.clips} clips of {figures.frames} frames at {figures.fps:g} frames per second, rendered by `lisa_video.figures`: random builds,
clothes, walls and cameras; {figures.mocap_share:.0%} moved by motion capture (DeepMimic's recordings, as shipped by PyPI `pybullet`), the rest
procedurally. The recordings {", ".join(figures.held_out)} are held out for evaluation.
"""


def _samples(sampler: str) -> str:
    prompts = "\n".join(f"{row}. {prompt}" for row, prompt in enumerate(SAMPLE_PROMPTS, 1))
    return f"""## Samples
{_STEPS} {sampler} steps, guidance {_GUIDANCE:g}, no control; one row per prompt, time from left to right, seeds {_SEEDS[0]} and {_SEEDS[1]}
side by side.

![samples](samples.png)

{prompts}
"""
