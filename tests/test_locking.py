import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.locking import only_writer

HOLD = """
import sys, time
from pathlib import Path
from lisa_video.locking import only_writer
with only_writer(Path("set"), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_until_its_process_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match="set: another run is writing here"),
            only_writer(Path("set"), lock),
        ):
            pass
        other.send_signal(signal.SIGKILL)
    with only_writer(Path("set"), lock):
        pass
