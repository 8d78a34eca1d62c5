"""Pages that stand alone: one HTML file, everything within it, nothing fetched.

Shapes: H W pixels. Text is escaped here, in cells, titles and descriptions alike; what is called a
body is HTML already.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #18181c; background: #fff; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; }
th { border-bottom: 1px solid #999; } td { vertical-align: top; overflow-wrap: anywhere; }
img, video { max-width: 100%; } pre { background: #f4f4f2; padding: .8rem; overflow-x: auto; }
"""


def html_page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole document; `style` is CSS that comes after that of all pages."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style.lstrip()}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def html_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    cell: Callable[[str], str] = escape,
) -> str:
    """A table; `cell` makes HTML of a cell's text. No header row where `header` is empty."""
    lines = [_row("th", map(escape, header))] if header else []
    lines += [_row("td", map(cell, row)) for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def html_plot(figure: Figure, text: str, kind: Literal["png", "svg"] = "png") -> str:
    """A drawn figure with its description."""
    import matplotlib

    buffer = io.BytesIO()
    # The same figure gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "lisa_video"}):
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:
            figure.savefig(buffer, format="png", dpi=100)
    return html_image(buffer.getvalue(), "svg+xml" if kind == "svg" else "png", text)


def html_picture(pixels: NDArray[np.uint8], text: str, kind: Literal["png", "jpeg"] = "png") -> str:
    """A picture, uint8 RGB (H, W, 3), with its description."""
    written, content = cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert written
    return html_image(content.tobytes(), kind, text)


def html_video(mp4: bytes, text: str) -> str:
    """An H.264 video that plays by itself, again and again, with its description."""
    data = base64.b64encode(mp4).decode()
    return (
        f'<video controls autoplay loop muted playsinline title="{escape(text)}" '
        f'src="data:video/mp4;base64,{data}"></video>'
    )


def html_image(content: bytes, kind: str, text: str) -> str:
    """An encoded picture, of MIME type image/`kind`, with its description."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{data}">'


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
