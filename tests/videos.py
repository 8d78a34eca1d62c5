"""Small videos with sound, as cameras make them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

RATE = 48_000


def tones(path: Path) -> np.ndarray:
    """Loudness (N,) of a file's sound in steps of 10 ms, from its first moment."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        loud = np.zeros(RATE * 60, np.float32)
        end = 0
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                start = round(float(piece.pts * piece.time_base) * RATE)
                samples = piece.to_ndarray()[0]
                kept = samples[max(0, -start) :]
                start = max(0, start)
                loud[start : start + len(kept)] = kept
                end = max(end, start + len(kept))
    return np.abs(loud[: end - end % 480].reshape(-1, 480)).mean(axis=1)


def write_sounding_video(
    path: Path,
    frames: np.ndarray,
    fps: int,
    beeps: list[tuple[float, float]],
    codec: str = "aac",
) -> Path:
    """Frames uint8 (F, H, W, 3) with tones from one second to another, as long as the pictures."""
    time = np.arange(round(len(frames) / fps * RATE)) / RATE
    on = np.any([(time >= start) & (time < end) for start, end in beeps], axis=0)
    wave = (0.5 * np.sin(2 * np.pi * 440 * time) * on).astype(np.float32)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=fps)
        pictures.height, pictures.width = frames.shape[1:3]
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        for frame in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode(None))
        piece = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        piece.sample_rate, piece.pts = RATE, 0
        container.mux(sound.encode(piece))
        container.mux(sound.encode(None))
    return path
