"""The two columns of the page: their components, and what the values of these stand for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from lisa_video.web.config import BACKBONE_ALONE, WebConfig
from lisa_video.web.requests import BodyChoice, ClipChoice, DriverChoice
from lisa_video.web.uploads import DRIVER_SUFFIXES, REFERENCE_SUFFIXES

_PERSON = {"the only one": "only", "the main person": 0, "the second": 1, "everybody": "all"}
_FRAMING = {"the whole picture": "fit", "the people": "people", "stretched": "stretch"}
_NO_SAMPLE = "none"
_BUILD = {
    "height": "Height, of the picture's",
    "head": "Neck to nose (adult: 0.12)",
    "torso": "Torso (0.34)",
    "legs": "Legs (0.54)",
    "arms": "Arms (0.36)",
    "shoulders": "Shoulders (0.26)",
}


@dataclass(frozen=True)
class DriverColumn:
    """Whose motion, and by whose body."""

    values: list[Any]
    """Inputs, as `driver_choice` takes them."""
    frames: gr.Number
    """One of them."""
    show: gr.Button
    outputs: list[Any]
    """Video and line."""


@dataclass(frozen=True)
class ClipColumn:
    """What to make of it."""

    values: list[Any]
    """Inputs, as `clip_choice` takes them."""
    model: gr.Dropdown
    proposed: list[Any]
    """Inputs that depend on the model, as `proposals` gives them."""
    generate: gr.Button
    stop: gr.Button
    told: gr.Textbox
    """Line of the outputs."""
    outputs: list[Any]
    """Video, line and two files."""


def driver_column(config: WebConfig, model: str) -> DriverColumn:
    """Raised on the page where this is called; `model` is the one that is proposed."""
    limits = config.limits
    samples = list(config.samples)
    upload = gr.File(
        label=f"Driving video or pose file, up to {limits.upload_mb:g} MB and {limits.seconds:g} s",
        file_types=list(DRIVER_SUFFIXES),
        height=150,
        elem_id="upload",
    )
    sample = gr.Dropdown(
        [*samples, _NO_SAMPLE], value=[*samples, _NO_SAMPLE][0], label="or a sample"
    )
    with gr.Row():
        framing = gr.Dropdown(list(_FRAMING), value=next(iter(_FRAMING)), label="Frame")
        person = gr.Dropdown(list(_PERSON), value=next(iter(_PERSON)), label="Follow")
    with gr.Row():
        detector = gr.Dropdown(
            list(config.detectors), value=config.detectors[0], label="Pose detector"
        )
        fps = gr.Number(0, label="Per second (0: all)", minimum=0, maximum=120)
    with gr.Row():
        start = gr.Number(0, label="First frame", precision=0, minimum=0)
        frames = gr.Number(
            config.models[model].frames,
            label="Frames",
            precision=0,
            minimum=1,
            maximum=limits.frames,
            elem_id="frames",
        )
    body = _body_inputs()
    button = gr.Button("Show the skeleton", elem_id="show")
    skeleton = _looping_video("Driver and skeleton", "skeleton")
    found = gr.Textbox(label="Found", interactive=False, lines=1, elem_id="found")
    values = [upload, sample, detector, framing, person, start, frames, fps, *body]
    return DriverColumn(values, frames, button, [skeleton, found])


def clip_column(config: WebConfig, first: str) -> ClipColumn:
    """Raised on the page where this is called; `first` is the model that is proposed."""
    proposed = config.models[first]
    model = gr.Dropdown(list(config.models), value=first, label="Backbone")
    checkpoints = gr.CheckboxGroup(
        **_checkpoint_choices(config, first), label="Checkpoints, side by side", elem_id="labels"
    )
    prompt = gr.Textbox(proposed.prompt, label="Prompt", lines=2, max_length=2000, elem_id="prompt")
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        steps = gr.Slider(
            1, config.limits.steps, proposed.steps, step=1, label="Steps", elem_id="steps"
        )
        scale = gr.Slider(0, 2, 1, step=0.05, label="Control")
    with gr.Accordion("More", open=False):
        negative = gr.Textbox("", label="Negative prompt", max_length=2000)
        with gr.Row():
            guidance = gr.Slider(1, 15, proposed.guidance_scale, step=0.5, label="Guidance")
            window = gr.Number(0, label="Window (0: all at once)", precision=0, minimum=0)
        score = gr.Checkbox(
            False,
            label="Draw the joints that are found, and PCK@0.1",
            visible=proposed.scorer is not None,
        )
    with gr.Row():
        generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=4)
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop", scale=1)
    result = _looping_video("Result", "result")
    told = gr.Textbox(label="What was done", interactive=False, lines=2, elem_id="told")
    with gr.Row():
        video = gr.DownloadButton("Video (mp4)", interactive=False, elem_id="video_file")
        settings = gr.DownloadButton("Settings (yaml)", interactive=False, elem_id="settings_file")
    values = [model, checkpoints, prompt, negative, seed, steps, guidance, scale, window, score]
    return ClipColumn(
        values,
        model,
        [checkpoints, prompt, steps, guidance, score],
        generate,
        stop,
        told,
        [result, told, video, settings],
    )


def proposals(config: WebConfig, model: str) -> list[Any]:
    """What the clip's column shows for a model when it is chosen."""
    proposed = config.models[model]
    return [
        gr.CheckboxGroup(**_checkpoint_choices(config, model)),
        proposed.prompt,
        proposed.steps,
        proposed.guidance_scale,
        gr.Checkbox(False, visible=proposed.scorer is not None),
    ]


def driver_choice(
    upload: str | None,
    sample: str,
    detector: str,
    framing: str,
    person: str,
    start: int | None,
    frames: int | None,
    fps: float | None,
    reference: str | None,
    reference_frame: int | None,
    *shares: float | None,
) -> DriverChoice:
    """From the page's values; an emptied number is 0, and 0 no share of a build."""
    return DriverChoice(
        Path(upload) if upload else None,
        None if sample == _NO_SAMPLE else sample,
        detector,
        _FRAMING[framing],  # type: ignore[arg-type]
        _PERSON[person],  # type: ignore[arg-type]
        start or 0,
        frames or 0,
        fps or 0,
        BodyChoice(
            Path(reference) if reference else None,
            reference_frame or 0,
            *(share or None for share in shares),
        ),
    )


def clip_choice(
    model: str,
    checkpoints: list[str],
    prompt: str,
    negative: str,
    seed: int | None,
    steps: int,
    guidance: float,
    scale: float,
    window: int | None,
    score: bool,
) -> ClipChoice:
    """From the page's values; an emptied number is 0."""
    return ClipChoice(
        model,
        tuple(checkpoints),
        prompt,
        negative,
        seed or 0,
        steps,
        guidance,
        scale,
        window or 0,
        score,
    )


def _body_inputs() -> list[Any]:
    """In the order of `BodyChoice`."""
    with gr.Accordion("Whose body: a reference, or a build", open=False, elem_id="body"):
        reference = gr.File(
            label="Picture, video or pose file of one person",
            file_types=list(REFERENCE_SUFFIXES),
            height=150,
            elem_id="reference",
        )
        frame = gr.Number(
            0, label="Frame, of a video", precision=0, minimum=0, elem_id="reference_frame"
        )
        gr.Markdown("or shares of the stature (0: the driver's own)")
        shares = []
        names = [item.name for item in fields(BodyChoice)][2:]
        for pair in zip(names[::2], names[1::2], strict=True):
            with gr.Row():
                shares += [
                    gr.Number(0, label=_BUILD[name], minimum=0, step=0.01, elem_id=name)
                    for name in pair
                ]
    return [reference, frame, *shares]


def _looping_video(label: str, name: str) -> gr.Video:
    return gr.Video(
        label=label,
        show_label=False,
        interactive=False,
        autoplay=True,
        loop=True,
        elem_id=name,
        buttons=[],
    )


def _checkpoint_choices(config: WebConfig, model: str) -> dict[str, Any]:
    labels = [BACKBONE_ALONE, *config.models[model].checkpoints]
    return {"choices": labels, "value": labels[1:]}
