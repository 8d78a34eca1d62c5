"""The page in a real browser: upload, generate, play, download; and refusals that a visitor can read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.cli import parse_config
from lisa_video.poses import PoseSequence
from lisa_video.rendering.config import RenderConfig
from lisa_video.video import read_video
from tests.broken_videos import FAULTS, break_videos
from tests.videos import write_sounding_video

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("gradio", reason="needs gradio")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "sample"
PATIENCE = 120_000  # milliseconds
PLAYING = """selector => {
    const video = document.querySelector(selector + ' video');
    if (!video || video.error || video.readyState < 2) return false;
    video.shown = (video.shown || new Set()).add(video.currentTime);
    return video.shown.size > 2;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    files = tmp_path_factory.mktemp("files")
    command = [sys.executable, "demo/app.py", "--config", "configs/web.yaml", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--limits.upload_mb", "0.5"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(files)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    found = next(filter(None, (re.match(r"open (\S+)", line) for line in server.stdout)), None)
    try:
        assert found is not None, "the server did not start"
        yield found[1]
    finally:
        server.terminate()
        code = server.wait(60)
    assert code == 143
    assert not [path for path in files.rglob("*") if path.is_file()], "uploads or results are left"


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    """A visitor's page, that asks nothing of any other server."""
    with visit(browser, address) as page:
        yield page


@contextmanager
def visit(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#generate")
    page.locator("#frames input").fill("6")
    set_steps(page, 3)
    yield page
    page.close()
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def set_steps(page: playwright.Page, steps: int) -> None:
    page.locator("#steps input[type=number]").fill(str(steps))


def upload(page: playwright.Page, path: Path, place: str = "#upload") -> None:
    page.locator(f"{place} input[type=file]").set_input_files(str(path))
    page.wait_for_selector(f"{place} :text('{path.stem}')")


def told(page: playwright.Page, line: str, place: str = "#told") -> None:
    """Wait for a text that begins so."""
    found = "([place, line]) => document.querySelector(`${place} textarea`).value.startsWith(line)"
    page.wait_for_function(found, arg=[place, line])


def refusal(page: playwright.Page, button: str) -> str:
    """The message that a click brings; it is taken away again."""
    page.locator(button).click()
    page.wait_for_selector(".toast-body")
    (shown,) = page.locator(".toast-body").all_inner_texts()
    page.locator(".toast-close").click()
    page.wait_for_selector(".toast-body", state="detached")
    heading, _, message = shown.split("\n")
    assert heading == "Error"
    return message


def test_a_visitor_uploads_generates_plays_and_downloads(
    page: playwright.Page, tmp_path: Path
) -> None:
    driver = write_sounding_video(
        tmp_path / "walk.mp4", read_video(SAMPLE / "videos" / "marching.mp4").frames, 10, [(0, 1)]
    )
    upload(page, driver)
    page.locator("#show").click()
    page.wait_for_function(PLAYING, arg="#skeleton")

    page.get_by_label("backbone alone").check()
    page.locator("#generate").click()
    page.wait_for_function(PLAYING, arg="#result")
    assert page.locator("#stop").is_disabled()
    shape = "v => { const r = document.querySelector('#result video'); return [r.videoWidth, r.videoHeight]}"
    assert page.evaluate(shape) == [4 * 256 + 3 * 4, 2 * 22 + 256]
    assert "6 frames as they are" in page.locator("#told textarea").input_value()

    files = []
    for button in ("#video_file", "#settings_file"):
        with page.expect_download() as download:
            page.locator(button).click()
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
    assert [file.suffix for file in files] == [".mp4", ".yaml"]
    assert len(read_video(files[0]).frames) == 6
    settings = parse_config(RenderConfig, ["--config", str(files[1])], "test")[0]
    assert settings.driving.video == Path("walk.mp4") and settings.sampling.steps == 3


def test_unusable_drivers_are_refused_in_words(page: playwright.Page, tmp_path: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "truncated")
    (broken,) = break_videos(tmp_path, [fault])
    upload(page, broken)
    for button in ("#show", "#generate"):
        assert re.fullmatch(f"truncated.mp4: {fault.reason}", refusal(page, button))

    sample = PoseSequence.load(SAMPLE / "poses" / "marching.npz")
    second = sample.keypoints + np.float32([120, 0, 0]) * (sample.keypoints[..., 2:] > 0)
    for name, people, message in (
        ("two", [sample.keypoints, second], r"two\.npz: shows 2 people, and one is expected; .*"),
        ("nobody", [sample.keypoints * 0], r"nobody\.npz: no person in any of its 16 frames"),
    ):
        path = tmp_path / f"{name}.npz"
        keypoints = np.concatenate(people, axis=1)
        PoseSequence(keypoints, 512, 256, fps=10).save(path)
        page.locator("#upload").get_by_label("Clear").click()
        upload(page, path)
        assert re.fullmatch(message, refusal(page, "#generate"))

    page.locator("#upload").get_by_label("Clear").click()
    page.locator("#frames input").fill("17")
    assert "has 16 frames, and 17 frames from" in refusal(page, "#generate")
    page.locator("#frames input").fill("6")
    page.locator("#prompt textarea").fill(" ")
    assert "prompts: give at least one" in refusal(page, "#generate")


def test_a_file_over_the_limit_is_refused_while_it_is_uploaded(
    page: playwright.Page, tmp_path: Path
) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(600_000))
    page.locator("#upload input[type=file]").set_input_files(str(tmp_path / "large.mp4"))
    page.wait_for_selector(".toast-body")
    assert "size" in page.locator(".toast-body").inner_text()


def test_stop_ends_ones_own_generation_and_the_next_visitor_is_served(
    page: playwright.Page, browser: playwright.Browser, address: str
) -> None:
    def at_work() -> None:
        page.wait_for_selector("#result :text('steps')")

    page.get_by_label("backbone alone").check()
    page.locator("#frames input").fill("16")
    set_steps(page, 50)
    assert page.locator("#stop").is_disabled()
    page.locator("#generate").click()
    at_work()
    with visit(browser, address) as other:
        other.locator("#generate").click()
        other.wait_for_selector("#result :text('queue')")
        other.locator("#stop").click()
        told(other, "stopped")
        assert page.locator("#told textarea").input_value() == ""
        at_work()
        other.locator("#generate").click()
        other.wait_for_selector("#result :text('queue')")
        page.locator("#stop").click()
        told(page, "stopped")
        assert not page.locator("#result video").count()
        told(other, "driver: 6 frames")
    set_steps(page, 2)
    page.locator("#generate").click()
    told(page, "driver: 16 frames")
    set_steps(page, 50)
    page.locator("#generate").click()
    at_work()
    page.locator("#stop").click()
    told(page, "stopped; the video is the one before")
    page.wait_for_selector("#stop[disabled]")
    assert not page.locator(".toast-body").count()


def test_a_page_that_is_closed_leaves_the_models_to_others(
    page: playwright.Page, browser: playwright.Browser, address: str
) -> None:
    with visit(browser, address) as other:
        other.locator("#frames input").fill("16")
        set_steps(other, 50)
        other.locator("#generate").click()
        other.wait_for_selector("#result :text('steps')")
        page.locator("#generate").click()
        page.wait_for_selector("#result :text('queue')")
    told(page, "driver: 6 frames")


def test_a_driver_takes_another_body(page: playwright.Page, tmp_path: Path) -> None:
    picture = tmp_path / "subject.png"
    cv2.imwrite(str(picture), read_video(SAMPLE / "videos" / "marching.mp4").frames[3][..., ::-1])
    page.get_by_text("Whose body").click()
    upload(page, picture, "#reference")
    page.locator("#show").click()
    told(page, "1 person; 6 frames fitted limb by limb", "#found")
    page.wait_for_function(PLAYING, arg="#skeleton")

    page.locator("#legs input").fill("0.4")
    both = "give either a reference or a build, and empty the other"
    assert refusal(page, "#generate") == both
    page.locator("#reference").get_by_label("Clear").click()
    page.locator("#generate").click()
    told(page, "driver: 6 frames fitted limb by limb")
    with page.expect_download() as download:
        page.locator("#settings_file").click()
    assert "legs: 0.4" in Path(download.value.path()).read_text()


def test_unusable_references_are_refused_in_words(page: playwright.Page, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    fault = next(fault for fault in FAULTS if fault.name == "truncated")
    (video,) = break_videos(tmp_path, [fault])
    page.get_by_text("Whose body").click()
    page.locator("#reference_frame input").fill("16")
    for path, message in (
        (tmp_path / "broken.png", "broken.png: cannot be read as an image"),
        (video, f"truncated.mp4: {fault.reason}"),
        (SAMPLE / "videos" / "marching.mp4", "marching.mp4: has no frame 16, .*"),
    ):
        upload(page, path, "#reference")
        for button in ("#show", "#generate"):
            assert re.fullmatch(message, refusal(page, button))
        page.locator("#reference").get_by_label("Clear").click()
