"""The global random generators of a process: torch's, NumPy's and Python's.

Nothing of this package draws from them but dropout inside a network. They are seeded all the same,
so that whatever draws from them is a function of the seed and the place in the run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed all of them, on every device."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed those of the CPU, and leave them afterwards as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
