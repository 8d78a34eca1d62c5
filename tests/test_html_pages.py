import base64
import re

import cv2
import numpy as np
from matplotlib.figure import Figure

from lisa_video.html_pages import html_page, html_picture, html_plot, html_table, html_video
from tests.evaluation.test_report import Links


def plotted() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    return figure


def test_a_page_of_everything_stands_alone() -> None:
    picture = np.full((4, 6, 3), (200, 30, 90), np.uint8)
    page = html_page(
        "<title>",
        [
            html_table(["<a>", "b"], [["1 < 2", "<script>"]]),
            html_plot(plotted(), 'a "plot"'),
            html_plot(plotted(), "a plot", "svg"),
            html_picture(picture, "<picture>"),
            html_video(b"\0\1", 'x" onerror="alert(1)'),
        ],
        "p { color: red; }",
    )
    found = Links()
    found.feed(page)
    assert not found.open and len(found.sources) == 4
    assert [re.match("data:([a-z0-9/+]+);", each)[1] for each in found.sources] == [  # type: ignore[index]
        "image/png",
        "image/svg+xml",
        "image/png",
        "video/mp4",
    ]
    assert "<script" not in page and '" onerror' not in page and "<title><title>" not in page
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    content = base64.b64decode(found.sources[2].partition("base64,")[2])
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert (shown[..., ::-1] == picture).all()


def test_the_same_plot_gives_the_same_bytes() -> None:
    for kind in ("png", "svg"):
        assert html_plot(plotted(), "", kind) == html_plot(plotted(), "", kind)
    svg = base64.b64decode(html_plot(plotted(), "", "svg").partition("base64,")[2][:-2])
    assert b"<dc:date>" not in svg


def test_cells_may_be_made_otherwise_and_headers_left_out() -> None:
    table = html_table([], [["a"]], lambda text: f"<b>{text}</b>")
    assert table == "<table><tr><td><b>a</b></td></tr></table>"
