"""An animated GIF of a video, with a palette of its own."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import OutputContainer
from av.filter import Graph
from av.filter.context import FilterContext

from lisa_video.errors import UserError


def write_gif(video: Path, path: Path) -> None:
    """Turn a video that was written here into a GIF that repeats for ever.

    The video is read twice, one frame at a time: for the 256 colours that serve it best, and for the
    pictures. GIF counts hundredths of a second, to which times are rounded.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        palette = _palette(video)
        with av.open(str(video)) as source, av.open(str(path.absolute()), "w", format="gif") as gif:
            stream = source.streams.video[0]
            rate = stream.average_rate
            assert rate is not None
            coloured = gif.add_stream("gif", rate=rate)
            coloured.width, coloured.height = stream.width, stream.height
            coloured.pix_fmt = "pal8"
            graph = Graph()
            pictures = graph.add_buffer(template=stream)
            colours = graph.add_buffer(
                width=palette.width,
                height=palette.height,
                format=palette.format,
                time_base=stream.time_base,
            )
            use = graph.add("paletteuse", "dither=sierra2_4a")
            sink = graph.add("buffersink")
            pictures.link_to(use, 0, 0)
            colours.link_to(use, 0, 1)
            use.link_to(sink)
            graph.configure()
            colours.push(palette)
            colours.push(None)
            for picture in source.decode(stream):
                pictures.push(picture)
                _drain(sink, gif, coloured)
            pictures.push(None)
            _drain(sink, gif, coloured)
            gif.mux(coloured.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from None


def _palette(video: Path) -> av.VideoFrame:
    with av.open(str(video)) as source:
        stream = source.streams.video[0]
        graph = Graph()
        pictures = graph.add_buffer(template=stream)
        generate, sink = graph.add("palettegen"), graph.add("buffersink")
        pictures.link_to(generate)
        generate.link_to(sink)
        graph.configure()
        for picture in source.decode(stream):
            pictures.push(picture)
        pictures.push(None)
        palette = sink.pull()
        assert isinstance(palette, av.VideoFrame)
        return palette


def _drain(sink: FilterContext, gif: OutputContainer, stream: av.VideoStream) -> None:
    """Encode the pictures that the filters have ready."""
    while True:
        try:
            picture = sink.pull()
        except (BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, av.VideoFrame)
        gif.mux(stream.encode(picture))
