"""The page: components, and what they call. Everything is served from here; nothing is fetched from
or told to other servers."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lisa_video.errors import UserError
from lisa_video.rendering.job import Progress
from lisa_video.web.config import BACKBONE_ALONE, WebConfig
from lisa_video.web.requests import (
    DRIVER_SUFFIXES,
    ClipChoice,
    DriverChoice,
    ResultFolders,
    driver_file,
    generated,
    plain_line,
    skeleton_preview,
)

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr

_PERSON = {"the only one": "only", "the main person": 0, "the second": 1, "everybody": "all"}
_FRAMING = {"the whole picture": "fit", "the people": "people", "stretched": "stretch"}
_NO_SAMPLE = "none"
_FONTS = ["system-ui", "sans-serif"]  # Gradio's own choice is fetched from the network
_CSS = ".gradio-container {max-width: 1280px !important; margin: auto} footer {display: none}"


def serve(config: WebConfig) -> None:
    """Serve the page until Ctrl-C; raises UserError where the address cannot be had."""
    if config.warning:
        print(config.warning, file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="lisa_video_web.") as name:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(name) / "files")
        page = build_page(config, Path(name))
        page.queue(max_size=config.limits.waiting, default_concurrency_limit=1, api_open=False)
        try:
            _, url, _ = page.launch(
                server_name=config.host,
                server_port=config.port or None,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=round(config.limits.upload_mb * 1e6),
                footer_links=[],
                ssr_mode=False,
                theme=gr.themes.Default(font=_FONTS, font_mono=["monospace"]),
                css=_CSS,
            )
        except OSError as error:
            raise UserError(
                f"port={config.port}: cannot listen at {config.host}: {error}"
            ) from None
        print(f"open {url} (Ctrl-C ends)", flush=True)
        page.block_thread()


def build_page(config: WebConfig, folder: Path) -> gr.Blocks:
    """The page, whose results are kept in `folder`."""
    handlers = _Handlers(config, ResultFolders(folder, config.limits.results))
    first = next(iter(config.models))
    with gr.Blocks(title="lisa_video", analytics_enabled=False) as page:
        gr.Markdown("# lisa_video\nA driver's motion, a prompt, and a video that follows both.")
        with gr.Row():
            with gr.Column(scale=2):
                driver, shown, skeleton = _driver_column(config, first)
            with gr.Column(scale=3):
                model, clip, outputs, start = _clip_column(config, first)
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "models"}
        shown.click(
            handlers.show_skeleton, driver, skeleton, show_progress_on=skeleton[0], **private
        )
        start.click(
            handlers.generate,
            [*driver, model, *clip],
            outputs,
            show_progress_on=outputs[0],
            **private,
        )
        checkpoints, prompt, *_ = clip
        model.change(
            handlers.propose,
            model,
            [checkpoints, prompt, *clip[4:6], driver[6], clip[8]],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def _driver_column(config: WebConfig, model: str) -> tuple[list[Any], gr.Button, list[Any]]:
    """Inputs of a `DriverChoice` in its order, the button that shows the skeleton, and its outputs."""
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
    button = gr.Button("Show the skeleton", elem_id="show")
    skeleton = gr.Video(
        label="Driver and skeleton",
        show_label=False,
        interactive=False,
        autoplay=True,
        loop=True,
        elem_id="skeleton",
        buttons=[],
    )
    found = gr.Textbox(label="Found", interactive=False, lines=1)
    inputs = [upload, sample, detector, framing, person, start, frames, fps]
    return inputs, button, [skeleton, found]


def _clip_column(config: WebConfig, first: str) -> tuple[gr.Dropdown, list[Any], list[Any], Any]:
    """The model, inputs of a `ClipChoice` behind it in its order, outputs, and the button."""
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
    button = gr.Button("Generate", variant="primary", elem_id="generate")
    result = gr.Video(
        label="Result",
        show_label=False,
        interactive=False,
        autoplay=True,
        loop=True,
        elem_id="result",
        buttons=[],
    )
    told = gr.Textbox(label="What was done", interactive=False, lines=2, elem_id="told")
    with gr.Row():
        video = gr.DownloadButton("Video (mp4)", interactive=False, elem_id="video_file")
        settings = gr.DownloadButton("Settings (yaml)", interactive=False, elem_id="settings_file")
    inputs = [checkpoints, prompt, negative, seed, steps, guidance, scale, window, score]
    return model, inputs, [result, told, video, settings], button


def _checkpoint_choices(config: WebConfig, model: str) -> dict[str, Any]:
    labels = [BACKBONE_ALONE, *config.models[model].checkpoints]
    return {"choices": labels, "value": labels[1:]}


class _Handlers:
    """What the buttons do: the page's values become choices, and refusals become messages."""

    def __init__(self, config: WebConfig, folders: ResultFolders) -> None:
        self._config, self._folders = config, folders

    def show_skeleton(self, *values: Any) -> tuple[str, str]:
        """Video and line for the values of a driver."""
        driver = _driver_choice(*values)
        try:
            path, fitted = skeleton_preview(self._config, driver, self._folders.new())
        except UserError as error:
            raise self._refusal(error, driver) from None
        people = fitted.record.people
        counted = "1 person" if people == 1 else f"{people} people"
        return str(path), f"{counted}; {fitted.record.summary().removeprefix('driver: ')}"

    def generate(self, *values: Any, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        """Result, text and files for the values of a driver and a clip."""
        driver, clip = _driver_choice(*values[:8]), _clip_choice(*values[8:])

        def report(state: Progress) -> None:
            progress((state.done, state.total), desc=state.label, unit="steps")

        progress(0, desc="finding the pose")
        try:
            result = generated(self._config, driver, clip, self._folders.new(), report)
        except UserError as error:
            raise self._refusal(error, driver) from None
        if result.cut:
            gr.Warning(f"the prompt is too long; this was not read: '{result.cut}'")
        video, settings = str(result.video), str(result.settings)
        files = [gr.DownloadButton(value=path, interactive=True) for path in (video, settings)]
        return video, result.text, *files

    def propose(self, model: str) -> tuple[Any, ...]:
        """What the page shows for a model, when it is chosen."""
        proposed = self._config.models[model]
        return (
            gr.CheckboxGroup(**_checkpoint_choices(self._config, model)),
            proposed.prompt,
            proposed.steps,
            proposed.guidance_scale,
            proposed.frames,
            gr.Checkbox(False, visible=proposed.scorer is not None),
        )

    def _refusal(self, error: UserError, driver: DriverChoice) -> gr.Error:
        try:
            paths = [driver_file(self._config, driver)]
        except UserError:
            paths = []
        line = plain_line(error, *paths)
        return gr.Error(line, duration=None, print_exception=False)


def _driver_choice(
    upload: str | None,
    sample: str,
    detector: str,
    framing: str,
    person: str,
    start: int | None,
    frames: int | None,
    fps: float | None,
) -> DriverChoice:
    """From the page's values; an emptied number is 0."""
    return DriverChoice(
        Path(upload) if upload else None,
        None if sample == _NO_SAMPLE else sample,
        detector,
        _FRAMING[framing],  # type: ignore[arg-type]
        _PERSON[person],  # type: ignore[arg-type]
        start or 0,
        frames or 0,
        fps or 0,
    )


def _clip_choice(
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
