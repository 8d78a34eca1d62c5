"""The page, and what its buttons do. Everything is served from here; nothing is fetched from or told to
other servers."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from lisa_video.errors import UserError
from lisa_video.rendering.job import Progress
from lisa_video.web.columns import (
    clip_choice,
    clip_column,
    driver_choice,
    driver_column,
    proposals,
)
from lisa_video.web.config import WebConfig
from lisa_video.web.desk import Desk
from lisa_video.web.requests import (
    DriverChoice,
    ResultFolders,
    driver_file,
    generated,
    plain_line,
    skeleton_preview,
)

_FONTS = ["system-ui", "sans-serif"]  # Gradio's own choice is fetched from the network
_CSS = ".gradio-container {max-width: 1280px !important; margin: auto} footer {display: none}"
_PHASES = {"poses": "finding the pose", "grid": "drawing"}
_SWEPT_EVERY, _KEPT_FOR = 600, 24 * 3600  # seconds, of uploads and copies that Gradio serves
_CLIP_VALUES = 10  # inputs of `clip_choice`, behind those of `driver_choice`


def serve(config: WebConfig) -> None:
    """Serve the page until a signal ends it; raises UserError where the address cannot be had."""
    if config.warning:
        print(config.warning, file=sys.stderr)
    desk = Desk()
    with tempfile.TemporaryDirectory(prefix="lisa_video_web.") as name:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(name) / "files")
        page = build_page(config, Path(name), desk)
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
        try:
            while page.is_running:
                time.sleep(0.5)
        finally:
            page.close(verbose=False)
            desk.close()


def build_page(config: WebConfig, folder: Path, desk: Desk) -> gr.Blocks:
    """The page, whose results are kept in `folder`."""
    handlers = _Handlers(config, ResultFolders(folder, config.limits.results), desk)
    first = next(iter(config.models))
    with gr.Blocks(
        title="lisa_video", analytics_enabled=False, delete_cache=(_SWEPT_EVERY, _KEPT_FOR)
    ) as page:
        gr.Markdown("# lisa_video\nA driver's motion, a prompt, and a video that follows both.")
        with gr.Row():
            with gr.Column(scale=2):
                driver = driver_column(config, first)
            with gr.Column(scale=3):
                clip = clip_column(config, first)
        hidden: dict[str, Any] = {"api_visibility": "private"}
        quiet = hidden | {"queue": False, "show_progress": "hidden"}
        driver.show.click(
            handlers.show_skeleton,
            driver.values,
            driver.outputs,
            show_progress_on=driver.outputs[0],
            concurrency_id="models",
            **hidden,
        )
        # The page calls what belongs to one click in this order, and the second ends late.
        clip.generate.click(lambda: gr.Button(interactive=True), None, clip.stop, **quiet)
        going = clip.generate.click(
            handlers.generate,
            [*driver.values, *clip.values],
            clip.outputs,
            show_progress_on=clip.outputs[0],
            concurrency_id="models",
            **hidden,
        )
        going.then(lambda: gr.Button(interactive=False), None, clip.stop, **quiet)
        clip.stop.click(
            handlers.stop, clip.outputs[0], [clip.told, clip.stop], cancels=[going], **quiet
        )
        clip.model.change(handlers.propose, clip.model, [*clip.proposed, driver.frames], **quiet)
        page.unload(handlers.leave)
    return page


class _Handlers:
    """What the buttons do: the page's values become choices, and refusals become messages."""

    def __init__(self, config: WebConfig, folders: ResultFolders, desk: Desk) -> None:
        self._config, self._folders, self._desk = config, folders, desk

    def show_skeleton(self, request: gr.Request, *values: Any) -> tuple[str, str]:
        """Video and line for the values of a driver."""
        driver = driver_choice(*values)
        try:
            with self._desk.work(_visitor(request)), self._folders.new() as folder:
                path, fitted = skeleton_preview(self._config, driver, folder)
        except UserError as error:
            raise self._refusal(error, driver) from None
        people = fitted.record.people
        counted = "1 person" if people == 1 else f"{people} people"
        return str(path), f"{counted}; {fitted.record.summary().removeprefix('driver: ')}"

    def generate(
        self,
        request: gr.Request,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Result, text and files for the values of a driver and a clip."""
        driver = driver_choice(*values[:-_CLIP_VALUES])
        clip = clip_choice(*values[-_CLIP_VALUES:])
        try:
            with self._desk.work(_visitor(request)) as go_on, self._folders.new() as folder:

                def report(state: Progress) -> None:
                    go_on()
                    unit = "steps" if state.phase == "clips" else "frames"
                    what = _PHASES.get(state.phase, state.label)
                    progress((state.done, state.total), desc=what, unit=unit)

                result = generated(self._config, driver, clip, folder, report)
        except UserError as error:
            raise self._refusal(error, driver) from None
        if result.cut:
            gr.Warning(f"the prompt is too long; this was not read: '{result.cut}'")
        video, settings = str(result.video), str(result.settings)
        files = [gr.DownloadButton(value=path, interactive=True) for path in (video, settings)]
        return video, result.text, *files

    def stop(self, request: gr.Request, shown: str | None) -> tuple[str, gr.Button]:
        """End what this visitor has at work, and say so beside a video that is shown."""
        self._desk.stop(_visitor(request))
        line = "stopped; the video is the one before" if shown else "stopped"
        return line, gr.Button(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """A visitor who closes the page wants nothing any more."""
        self._desk.stop(_visitor(request))

    def propose(self, model: str) -> list[Any]:
        """What the page shows for a model, when it is chosen."""
        return [*proposals(self._config, model), self._config.models[model].frames]

    def _refusal(self, error: UserError, driver: DriverChoice) -> gr.Error:
        paths = [driver.body.reference]
        with suppress(UserError):
            paths.append(driver_file(self._config, driver))
        line = plain_line(error, *paths)
        return gr.Error(line, duration=None, print_exception=False)


def _visitor(request: gr.Request) -> str:
    """Of one page that is open; nobody else knows it."""
    return str(request.session_hash)
