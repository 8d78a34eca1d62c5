"""Jobs that are told to end while they work: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lisa_video.termination import Terminated, raising_on_sigterm

ROOT = Path(__file__).parents[1]
MANY = 1000  # denoising steps; the scheduler takes no more
GENERATE = """
backbone: {path: data/embedded/animatediff/backbone}
side_network: data/embedded/animatediff/side_network
driving: {poses: data/sample/poses/marching.npz, frames: 4}
prompt: a person
output: none
"""


@pytest.mark.parametrize(
    ("script", "name", "code", "line"),
    [
        ("demo/render.py", "SIGTERM", 143, "terminated"),
        ("demo/render.py", "SIGINT", 130, "interrupted"),
        ("pipelines/generate.py", "SIGTERM", 143, "terminated"),
    ],
)
def test_a_job_that_is_told_to_end_cleans_up_and_says_one_line(
    tmp_path: Path, script: str, name: str, code: int, line: str
) -> None:
    settings = ROOT / "configs" / "animatediff" / "render.yaml"
    if "generate" in script:
        settings = tmp_path / "generate.yaml"
        settings.write_text(GENERATE)
    folder = tmp_path / "out"
    command = [sys.executable, script, "--config", str(settings)]
    changes = {"output": folder / "clip.mp4", "sampling.steps": MANY, "driving.frames": 4}
    flags = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    job = subprocess.Popen(
        [*command, *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "stderr").open("w"),
        # As from a terminal, where this runs in a script's background and Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        while f"/{MANY} [" not in (tmp_path / "stderr").read_text():
            assert job.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        assert "generate" in script or list(folder.iterdir()), "nothing there to clean up"
        job.send_signal(getattr(signal, name))
        assert job.wait(60) == code
    finally:
        job.kill()
    assert not list(folder.iterdir())
    text = (tmp_path / "stderr").read_text()
    assert text.splitlines()[-1] == line
    assert "Traceback" not in text and "Exception" not in text


def test_cleaning_up_goes_on_where_the_signal_comes_twice() -> None:
    cleaned = False

    def ended() -> None:
        nonlocal cleaned
        with raising_on_sigterm():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
                cleaned = True

    with pytest.raises(Terminated):
        ended()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_handlers_that_are_there_already_stay() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        with raising_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_dies_of_the_signal_as_ever(tmp_path: Path) -> None:
    code = f"""
import os, signal, time
from lisa_video.termination import raising_on_sigterm
with raising_on_sigterm():
    child = os.fork()
    if not child:
        try:
            open({str(tmp_path / "ready")!r}, "w").close()
            time.sleep(60)
        finally:
            open({str(tmp_path / "unwound")!r}, "w").close()
    while not os.path.exists({str(tmp_path / "ready")!r}):
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "15", result.stderr
    assert not (tmp_path / "unwound").exists()
