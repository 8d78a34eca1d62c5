"""Settings shared by all tests."""

import signal
from collections.abc import Iterator

import pytest
import torch

# The models here are tiny: more threads cost time, and they can change the last bits of a sum.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and a run would then ignore it as well."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
