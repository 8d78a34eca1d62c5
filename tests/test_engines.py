"""Jobs in processes that are killed, locally and on a real local Ray cluster."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from lisa_video.engines import ATTEMPTS, LostJob, map_jobs
from lisa_video.errors import UserError


def square(number: int) -> int:
    return number * number


def square_but_die(number: int, *, folder: Path, always: int, once: int) -> int:
    """Dies like a worker that the system kills: each time for one number, once for another."""
    mark = folder / f"{number}-{time.monotonic_ns()}"
    mark.touch()
    first = len(list(folder.glob(f"{number}-*"))) == 1
    if number == always or (number == once and first):
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise UserError("number 3 cannot be used")
    return number // (number - 4)


def environment(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def test_each_job_is_done_once() -> None:
    results = list(map_jobs(square, range(20), workers=3, desc="square"))
    assert sorted(results) == [number**2 for number in range(20)]
    assert list(map_jobs(square, [], workers=3, desc="square")) == []


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path) -> None:
    job = partial(square_but_die, folder=tmp_path, always=5, once=2)
    results = list(map_jobs(job, range(8), workers=2, desc="square"))
    lost = [result for result in results if isinstance(result, LostJob)]
    assert lost == [LostJob(5, f"its process died in each of {ATTEMPTS} attempts (signal 9)")]
    kept = [result for result in results if not isinstance(result, LostJob)]
    assert sorted(kept) == [number**2 for number in range(8) if number != 5]
    assert len(list(tmp_path.glob("5-*"))) == ATTEMPTS
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_errors_come_through_as_what_they_are() -> None:
    with pytest.raises(UserError, match="number 3 cannot be used"):
        list(map_jobs(refuse, [1, 2, 3], workers=1, desc="refuse"))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(map_jobs(refuse, [4], workers=1, desc="refuse"))


def test_workers_compute_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(map_jobs(environment, [0], workers=1, desc="threads")) == ["1"]
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert list(map_jobs(environment, [0], workers=1, desc="threads")) == ["7"]


SLEEPERS = """
import sys, time
from pathlib import Path
from lisa_video.engines import map_jobs

def sleep(path):
    path.touch()
    time.sleep(600)

if __name__ == "__main__":
    for _ in map_jobs(sleep, [Path(sys.argv[1])], workers=1, desc="sleep"):
        pass
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script, mark = tmp_path / "sleepers.py", tmp_path / "started"
    script.write_text(SLEEPERS)
    # The worker holds the write end of this pipe until it ends.
    parent = subprocess.Popen([sys.executable, script, mark], stderr=subprocess.PIPE)
    assert parent.stderr is not None
    while not mark.exists():
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.stderr.read()
    parent.wait()


LEAVE = """
import sys, time
from lisa_video.engines import map_jobs

def sleep(seconds):
    time.sleep(seconds)

if __name__ == "__main__":
    results = map_jobs(sleep, [0, 600], workers=2, desc="sleep")
    next(results)
    sys.exit(3)
"""


def test_a_program_that_ends_waits_for_no_worker(tmp_path: Path) -> None:
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    assert subprocess.run([sys.executable, script], check=False).returncode == 3


@pytest.mark.slow
def test_ray_loses_and_doubles_nothing(tmp_path: Path) -> None:
    job = partial(square_but_die, folder=tmp_path, always=5, once=2)
    results = list(map_jobs(job, range(8), engine="ray", workers=2, desc="square"))
    lost = [result for result in results if isinstance(result, LostJob)]
    assert [job.item for job in lost] == [5]
    kept = [result for result in results if not isinstance(result, LostJob)]
    assert sorted(kept) == [number**2 for number in range(8) if number != 5]
    with pytest.raises(UserError, match="number 3 cannot be used"):
        list(map_jobs(refuse, [1, 2, 3], engine="ray", workers=2, desc="refuse"))
