"""Work in a process forked from this one, which has the libraries and the models loaded."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from lisa_video.errors import UserError


def start(work: Callable[[], object], said: Path) -> int:
    """Begin `work`, whose output and errors go to the file `said`; the number of its process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
        # tqdm's own is shared by forked processes, and who dies with it stops all others.
        tqdm.set_lock(threading.RLock())
        work()
        code = 0
    except UserError as error:
        os.write(2, f"error: {error}\n".encode())
        code = 2
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    os._exit(code)


def end(child: int) -> int:
    """Wait for a process; its exit code, or the signal that killed it as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work: Callable[[], object], said: Path) -> int:
    """Do `work` to its end; the exit code."""
    return end(start(work, said))
