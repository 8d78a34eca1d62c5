"""The report: one file that asks for nothing else, and shows what was measured."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_video.evaluation import clips as clip_measures
from lisa_video.evaluation.job import evaluate
from lisa_video.evaluation_config import EvaluateConfig, SamplingConfig
from tests.evaluation.dots import DotDetector, dot_frames, dot_poses
from tests.metrics.networks import colour_network


class Links(HTMLParser):
    """Collects whatever a browser would fetch, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven clips, each further from its poses than the one before, one of them unreadable."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("real", "fake", "poses"):
        (folder / name).mkdir()
    for index in range(8):
        name = f"clip {index} <&>"
        np.save(folder / "real" / f"{name}.npy", dot_frames(dot_poses(frames=10)))
        np.save(folder / "fake" / f"{name}.npy", dot_frames(dot_poses(3.0 * index, frames=10)))
        dot_poses(frames=10).save(folder / "poses" / f"{name}.npz")
    (folder / "fake" / "clip 7 <&>.npy").write_bytes(b"")
    config = EvaluateConfig(
        real=folder / "real",
        fake=folder / "fake",
        poses=folder / "poses",
        metrics="fvd,pck,flicker",
        sampling=SamplingConfig(frames=10),
        network=str(colour_network(folder)),
        html=folder / "report.html",
        use_cache=False,
        allow_skips=True,
        draws=10,
        device="cpu",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_measures, "build_detector", lambda name, weights: DotDetector())
        evaluate(config)
        with pytest.raises(Exception, match="exists already"):
            evaluate(replace(config, metrics="flicker"))
    assert not list(Path(folder).glob("*.tmp"))
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_stands_alone(report: str) -> None:
    page = Links()
    page.feed(report)
    assert not page.open
    assert len(page.sources) == 2 + 6  # plots, and pictures of three worst and three best clips
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", report)
    for source in page.sources:
        content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).size > 1000


def test_it_holds_table_warnings_and_result(report: str) -> None:
    for part in (
        "<td>FD-colours</td>",
        "<td>pck@0.2</td>",
        "<td>flicker</td>",
        "left out: ",
        "only 7 clips on one side",
        "&quot;extractor_sha256&quot;",
        "&quot;versions&quot;",
    ):
        assert part in report, part


def test_names_are_shown_and_never_run(report: str) -> None:
    assert "clip 3 &lt;&amp;&gt;" in report
    assert "<&>" not in report


def test_worst_clips_come_first(report: str) -> None:
    worst, best = report.split("<h2>Worst clips</h2>")[1].split("<h2>Best clips</h2>")
    shown = [re.findall(r"<p>clip (\d)", part) for part in (worst, best)]
    assert shown[0][0] in "456" and "0" not in shown[0]
    assert len(shown[0]) == len(shown[1]) == 3 and not set(shown[0]) & set(shown[1])
