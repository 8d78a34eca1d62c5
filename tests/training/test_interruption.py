"""Signals are noted, once, and their handlers come back."""

import os
import signal
import threading
import time

import pytest

from lisa_video.training.interruption import SIGNALS, Interrupted, Interruption


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_noted_and_its_handler_restored(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert signal.getsignal(number) is before
        interruption.listen()
        assert interruption.signal is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.signal == name
    assert signal.getsignal(number) is before
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith(f"{name}: finishing this step")


def test_a_second_ctrl_c_stops_at_once_and_an_echo_of_the_first_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption(speaks=False) as interruption:
        interruption.listen()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.1)
        with pytest.raises(KeyboardInterrupt) as stopped:
            os.kill(os.getpid(), signal.SIGINT)
    assert interruption.signal == "SIGINT"
    assert not isinstance(stopped.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with Interruption(speaks=False) as interruption:
            interruption.listen()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert interruption.signal is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_nothing_is_changed() -> None:
    before = [signal.getsignal(getattr(signal, name)) for name in SIGNALS]
    during = []

    def run() -> None:
        with Interruption() as interruption:
            interruption.listen()
            during.extend(signal.getsignal(getattr(signal, name)) for name in SIGNALS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == before
