"""Counting bytes: known cases, by hand."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lisa_video.memory.measured import peak_allocated
from lisa_video.memory.tracker import MemoryTracker, module_bytes

KIB = 1024


def floats(kib: int) -> torch.Tensor:
    return torch.zeros(kib * KIB // 4)


def test_views_and_results_in_place_share_a_storage() -> None:
    with MemoryTracker() as tracker:
        values = floats(8)
        view = values.view(2, -1)[0]
        values.add_(1)
        assert tracker.held == tracker.peak == 8 * KIB
        del values
        assert tracker.held == 8 * KIB  # the view keeps it
        del view
    assert (tracker.held, tracker.peak) == (0, 8 * KIB)


def test_the_peak_is_that_of_what_lives_at_once() -> None:
    with MemoryTracker() as tracker:
        one = floats(8)
        two = one + 1
        del one
        three = two + 1
        assert (tracker.held, tracker.peak) == (16 * KIB, 16 * KIB)
        four = three * 2
    assert tracker.peak == 24 * KIB
    assert len(four) == len(two)


def test_gradients_are_told_apart_and_ignored_weights_do_not_count() -> None:
    layer = nn.Linear(64, 64, bias=False)
    tracker = MemoryTracker()
    tracker.ignore(layer)
    tracker.watch(layer.parameters())
    with tracker:
        for _ in range(2):
            layer(torch.zeros(1, 64)).sum().backward()
    weights = 64 * 64 * 4
    assert module_bytes(layer) == weights
    assert tracker.gradients == weights
    assert tracker.held == weights
    # The second gradient, before it is added to the first.
    assert weights <= tracker.activations < 2 * weights


def test_what_a_graph_keeps_is_held_until_backward() -> None:
    leaf = torch.zeros(2 * KIB, requires_grad=True)
    with MemoryTracker() as tracker:
        total = leaf.exp().sin().cos().sum()
        assert 2 * 8 * KIB <= tracker.held < 3 * 8 * KIB
        total.backward()
    assert tracker.held <= 8 * KIB + 4  # the gradient of the leaf, and the sum


def test_fake_tensors_count_as_real_ones() -> None:
    def work() -> torch.Tensor:
        values = floats(8)
        return (values + 1).view(-1, 4).softmax(dim=1) @ torch.zeros(4, 16)

    with MemoryTracker() as real:
        work()
    with FakeTensorMode(), MemoryTracker() as fake:
        work()
    assert real.peak == fake.peak > 16 * KIB


def test_the_allocator_agrees() -> None:
    def work() -> None:
        leaf = torch.zeros(64, 64, requires_grad=True)
        (leaf @ leaf).tanh().square().sum().backward()

    with MemoryTracker() as tracker:
        work()
    measured = peak_allocated(work, torch.device("cpu"))
    assert abs(measured - tracker.peak) < KIB


def test_what_an_earlier_work_left_behind_does_not_count() -> None:
    cpu, kept = torch.device("cpu"), []
    assert peak_allocated(lambda: kept.append(floats(4 * KIB)), cpu) == 4 * KIB * KIB
    kept.clear()  # where the profiler does not see it
    assert peak_allocated(lambda: floats(8), cpu) == 8 * KIB
    assert peak_allocated(lambda: None, cpu) == 0


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(8, 8)
    pair = nn.ModuleList([layer, layer, nn.Linear(8, 8)])
    assert module_bytes(pair, layer, None) == 2 * (8 * 8 + 8) * 4
