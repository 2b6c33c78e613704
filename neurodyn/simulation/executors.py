"""Where the blocks of a sweep run: here, in threads, processes, a cluster, or an executor of the user's own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from multiprocessing import get_all_start_methods, get_context
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from neurodyn.checks import needed
from neurodyn.errors import InvalidValueError, LostWorkerError

_SCHEDULERS = ("synchronous", "threads", "processes", "distributed")
_TRIES = 3
"""How often a block runs whose process is killed."""
_AHEAD = 1000
"""How many blocks wait at an executor, at most."""

Result = TypeVar("Result")


class Scheduler(Generic[Result]):
    """What runs a function for each of several numbers.

    Parameters
    ----------
    given
        None, the name of one of Dask's schedulers, a `dask.distributed.Client`, or an executor with a method `submit`.

    Raises
    ------
    ValueError
        If it is none of these, or there is no cluster.
    """

    def __init__(self, given: Any) -> None:
        self._local: type[ThreadPoolExecutor | ProcessPoolExecutor] | None = None
        self._executor: Any = None
        if isinstance(given, str) and given == "distributed":
            given = _running_client()
        if given is None or (isinstance(given, str) and given == "synchronous"):
            pass
        elif isinstance(given, str) and given in ("threads", "processes"):
            self._local = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}[given]
        elif callable(getattr(given, "get_executor", None)) and not isinstance(given, type):
            self._executor = given.get_executor(pure=False)
        elif callable(getattr(given, "submit", None)) and not isinstance(given, type):
            self._executor = given
        else:
            raise InvalidValueError(
                f"scheduler: there is no {given!r}; there are None, {', '.join(map(repr, _SCHEDULERS))}, a running "
                "dask.distributed.Client, and executors such as those of concurrent.futures"
            )
        self.here = self._local is None and self._executor is None
        """Whether blocks run one after the other, in this thread."""
        self.threads = ThreadPoolExecutor in (self._local, type(self._executor))
        """Whether they run in threads of this process."""

    def map(self, function: Callable[[int], Result], numbers: Sequence[int]) -> Generator[Result, None, None]:
        """Yield what a function returns of each number, in the order in which they come.

        Closing the iterator leaves out what has not begun, and waits for what has.

        Raises
        ------
        RuntimeError
            If processes are killed.
        """
        if self.here:
            yield from map(function, numbers)
        elif self._executor is not None:
            _, lost = yield from self._through(self._executor, function, numbers)
            if lost:
                raise LostWorkerError(
                    "scheduler: a process of the executor has been killed, and it takes no more work; what is done is "
                    "kept: make a new executor, and run it again"
                )
        else:
            yield from self._in_pool(function, numbers)

    def _in_pool(self, function: Callable[[int], Result], numbers: Sequence[int]) -> Generator[Result, None, None]:
        left, tries = list(numbers), 0
        while left:
            with self._pool(len(left)) as pool:
                done, lost = yield from self._through(pool, function, left)
            tries = 0 if done else tries + 1
            left = [number for number in left if number not in done]
            if lost and tries >= _TRIES:
                raise LostWorkerError(
                    f"scheduler: processes were killed {_TRIES} times without one block done, perhaps for want of "
                    "memory: take a smaller block=, or fewer workers (dask.config num_workers); or because a script "
                    "calls nd.sweep outside of `if __name__ == '__main__':`. What is done is kept"
                )

    def _pool(self, tasks: int) -> ThreadPoolExecutor | ProcessPoolExecutor:
        workers = min(tasks, needed("dask.config", extra="sweep").get("num_workers", None) or _processors())
        if self._local is ThreadPoolExecutor:
            return ThreadPoolExecutor(workers)
        return ProcessPoolExecutor(workers, mp_context=_context())

    def _through(
        self, executor: Any, function: Callable[[int], Result], numbers: Sequence[int]
    ) -> Generator[Result, None, tuple[set[int], bool]]:
        """Yield results, and return the numbers that are done, and whether processes were lost."""
        threads = isinstance(executor, ThreadPoolExecutor)
        call, first = (function, ()) if threads else (_call, (needed("cloudpickle", extra="sweep").dumps(function),))
        finished: SimpleQueue[Any] = SimpleQueue()
        running: dict[Any, int] = {}
        done: set[int] = set()
        lost = False
        remaining = iter(numbers)

        def submit() -> bool:
            for number in remaining:
                future = executor.submit(call, *first, number)
                running[future] = number
                future.add_done_callback(finished.put)
                return True
            return False

        try:
            while len(running) < _AHEAD and submit():
                pass
            while running:
                future = finished.get()
                number = running.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    lost = True
                    continue
                except Exception as error:  # what goes wrong at a point comes as a result
                    raise LostWorkerError(
                        f"scheduler: the executor could not run a block ({type(error).__name__}: {error}); "
                        "what is done is kept"
                    ) from error
                done.add(number)
                yield result
                if not lost:
                    submit()
        except BrokenExecutor:  # as a block was handed to it
            lost = True
        finally:
            for future in running:
                future.cancel()
            for future in running:
                with suppress(Exception):  # it waits for what runs; what is cancelled has no result
                    future.result()
        return done, lost


def _call(packed: bytes, number: int) -> Any:
    return _unpacked(packed)(number)


@lru_cache(1)
def _unpacked(packed: bytes) -> Any:
    return needed("cloudpickle", extra="sweep").loads(packed)


@cache
def _context() -> Any:
    """Return how processes start: forked from one that has imported neurodyn, where the system can."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "neurodyn"])
    return context


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _running_client() -> Any:
    distributed = needed("distributed", extra="sweep")
    try:
        return distributed.get_client()
    except ValueError as error:
        raise InvalidValueError(
            "scheduler: 'distributed' needs a running cluster: make a dask.distributed.Client first"
        ) from error


def shares_process() -> bool:
    """Tell whether other blocks may run in threads of this process, as on a worker of a cluster that has several."""
    if threading.current_thread() is threading.main_thread():
        return False
    distributed = sys.modules.get("distributed")
    try:
        return distributed is not None and bool(distributed.get_worker().state.nthreads > 1)
    except (ValueError, AttributeError):  # it is no worker
        return False
