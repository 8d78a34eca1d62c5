"""Many independent jobs: in processes of this machine, or on a Ray cluster.

A job is `function(item)`, picklable, and may be run again where its process was lost: it writes its
own files whole or not at all, and returns a small record. On a cluster all machines see the files
under the same paths.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from tqdm import tqdm

from lisa_video.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]

ATTEMPTS = 3
"""Times that a job is tried before it is given up as one that ends its process."""

_SPAWN = multiprocessing.get_context("spawn")  # threads and torch survive no fork
_DYING_SECONDS = 5  # for a process whose pipe is closed, before it is killed
_RAY_BLOCKS = 4096  # tasks that items are shared among: more cost Ray more than the work
_RAY_MEMORY = 256 * 2**20  # bytes of its object store: only items and records pass through it


@dataclass(frozen=True)
class LostJob(Generic[Item]):
    """A job that ended its process each time that it was tried: nobody knows what it did."""

    item: Item
    reason: str
    """One line."""


def map_jobs(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    engine: Engine = "local",
    workers: int = 0,
    desc: str,
    gpus: float = 0,
) -> Iterator[Result | LostJob[Item]]:
    """`function(item)` of each item, in the order in which they end.

    A job whose process dies, as by a crash of a decoder or for want of memory, is tried again.
    Workers compute with one thread each, unless OMP_NUM_THREADS says otherwise.

    Args:
        function: picklable, as is its result; see the top of this file.
        items: picklable, and small.
        engine: "local" or "ray". Ray runs on the cluster named by RAY_ADDRESS, and else on this
            machine.
        workers: processes, or tasks of Ray, at a time; 0 takes one for each core, of this machine or
            of the cluster.
        desc: of the progress bar.
        gpus: share of a GPU that each task of Ray is given, which else sees none; processes of
            this machine see all in any case.

    Raises:
        UserError: `function` raised one, Ray is not installed, or its cluster has no such GPU. What
            ran besides is killed.
        RuntimeError: `function` raised something else, whose traceback is in the message.
    """
    assert workers >= 0, workers
    todo = list(items)
    if not todo:
        return
    results = _map_local if engine == "local" else partial(_map_ray, gpus=gpus)
    with tqdm(total=len(todo), desc=desc, unit="item", disable=None) as progress:
        for result in results(function, todo, workers):
            progress.update()
            yield result


@dataclass(frozen=True)
class _Outcome:
    """What comes back from a worker: a result, or the text of an error."""

    result: Any = None
    error: str | None = None
    by_user: bool = False

    def unwrap(self) -> Any:
        if self.error is None:
            return self.result
        raise UserError(self.error) if self.by_user else RuntimeError(self.error)


def _outcome(function: Callable[[Item], Result], item: Item) -> _Outcome:
    try:
        return _Outcome(function(item))
    except UserError as error:
        return _Outcome(error=str(error), by_user=True)
    except Exception:
        return _Outcome(error=f"a job failed:\n{traceback.format_exc()}")


# The local engine: one pipe to each process, so that a death is known to be that of one job.


class _Worker:
    """A process that runs one job at a time."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        # A daemon, for which an interpreter that ends does not wait.
        self._process = _SPAWN.Process(target=_serve, args=(function, theirs), daemon=True)
        with _single_threaded():
            self._process.start()
        theirs.close()
        self.position = -1
        """Of the item that it works at."""

    def give(self, position: int, item: object) -> None:
        self.position = position
        with suppress(BrokenPipeError):  # it is dead, which `take` finds out
            self.pipe.send(item)

    def take(self) -> _Outcome | None:
        """What came of its job; None where it died."""
        try:
            outcome: _Outcome = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        return outcome

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def ending(self) -> str:
        """How it died."""
        self._process.join(_DYING_SECONDS)
        self.stop()
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _map_local(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result | LostJob[Item]]:
    waiting = deque(range(len(items)))
    deaths = [0] * len(items)
    busy: dict[Connection, _Worker] = {}

    def start(worker: _Worker) -> None:
        position = waiting.popleft()
        worker.give(position, items[position])
        busy[worker.pipe] = worker

    try:
        for _ in range(min(workers or os.cpu_count() or 1, len(items))):
            start(_Worker(function))
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                outcome, position = worker.take(), worker.position
                del busy[pipe]
                if outcome is None:
                    ending = worker.ending()
                    deaths[position] += 1
                    if deaths[position] < ATTEMPTS:
                        waiting.append(position)
                if waiting:
                    start(_Worker(function) if outcome is None else worker)
                elif outcome is not None:
                    worker.stop()
                if outcome is not None:
                    yield outcome.unwrap()
                elif deaths[position] == ATTEMPTS:
                    yield LostJob(items[position], _lost(ending))
    finally:
        for worker in busy.values():
            worker.stop()


def _lost(ending: str) -> str:
    return f"its process died in each of {ATTEMPTS} attempts ({ending})"


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and kills it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(function, item))


def _end_with_parent() -> None:
    """A killed parent must not leave processes behind that go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Environment of workers: their libraries read it when they are loaded."""
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


# The Ray engine.


def _map_ray(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, gpus: float
) -> Iterator[Result | LostJob[Item]]:
    with _ray_session(workers):
        _require_gpus(gpus)
        missing = set(range(len(items)))
        # One job that always ends its process takes along those that share its block: a second
        # pass runs what is missing one by one.
        for blocks in (min(len(items), _RAY_BLOCKS), None):
            todo = sorted(missing)
            if not todo:
                return
            blocks = blocks or len(todo)
            for position, outcome in _ray_pass(function, items, todo, workers, blocks, gpus):
                missing.remove(position)
                yield outcome.unwrap()
        for position in sorted(missing):
            yield LostJob(items[position], "its process died in each attempt of Ray")


def _ray_pass(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    positions: Sequence[int],
    workers: int,
    blocks: int,
    gpus: float,
) -> Iterator[tuple[int, _Outcome]]:
    """Outcomes of the items at `positions`, without those whose tasks were lost."""
    import ray

    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a lost block is no reason to stop
    context.enable_progress_bars = False
    rows = [{"position": position, "item": items[position]} for position in positions]
    jobs = ray.data.from_items(rows, override_num_blocks=blocks).map(
        partial(_ray_job, function),
        concurrency=workers or int(ray.cluster_resources()["CPU"]),
        num_cpus=1,
        num_gpus=gpus or None,
        max_retries=ATTEMPTS - 1,
    )
    for row in jobs.iter_rows():
        yield row["position"], row["outcome"]


def _require_gpus(gpus: float) -> None:
    """Ray would wait for ever for what its cluster does not have."""
    import ray

    if ray.cluster_resources().get("GPU", 0) < gpus:
        raise UserError(f"engine=ray: tasks ask for {gpus:g} GPUs each, and the cluster has none")


def _ray_job(function: Callable[[Item], Result], row: dict[str, Any]) -> dict[str, Any]:
    return {"position": row["position"], "outcome": _outcome(function, row["item"])}


@contextmanager
def _ray_session(workers: int) -> Iterator[None]:
    """Ray as the caller started it, as RAY_ADDRESS says, or on this machine for the while."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("engine=ray: Ray is not installed; pip install 'lisa_video[ray]'") from None
    if ray.is_initialized():
        yield
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        ray.init(
            num_cpus=workers or None,
            object_store_memory=_RAY_MEMORY,
            include_dashboard=False,
            log_to_driver=False,
        )
    try:
        yield
    finally:
        ray.shutdown()
