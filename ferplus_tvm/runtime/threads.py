"""One thread of an engine's own, on which everything of TVM's happens.

TVM keeps a thread pool per calling thread, pins pool threads to CPUs, and cannot call from a
forked child's main thread.  With one dedicated thread per engine, any number of callers share one
pool, no caller's affinity changes, and a forked child starts a fresh thread.
"""

from __future__ import annotations

import logging
import operator
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ferplus_tvm.host import cpu

T = TypeVar("T")

_log = logging.getLogger(__name__)

SPIN_COUNT = "1000"
"""How often a pool thread looks for work before it sleeps: about half a millisecond.

TVM's default of 300,000 burns a core for some 150 ms after each call; 0 makes every parallel loop
of a call wake its threads anew.
"""


def threads_to_use(asked: int | None) -> int:
    """Return the number of threads for one call.

    Parameters
    ----------
    asked
        The number that was asked for, of which no more are used than the affinity allows CPUs;
        None for as many CPUs as this process may use.

    Raises
    ------
    ValueError
        If it is less than one.
    TypeError
        If it is not a whole number.
    """
    if asked is None:
        return cpu.default_threads()
    asked = operator.index(asked)
    if asked < 1:
        raise ValueError(f"threads is {asked}: expected 1 or more, or None for the default")
    allowed = len(cpu.allowed())
    if asked > allowed:
        _log.warning(
            "threads=%d, but this process may use %d CPUs: %d are used; change its affinity for "
            "more",
            asked,
            allowed,
            allowed,
        )
    return min(asked, allowed)


def limit_spinning() -> None:
    """Have TVM's pool threads sleep soon after a call, unless the user has set how long.

    TVM reads the environment when a pool is created, so this is called before.
    """
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)


class Call(Generic[T]):
    """A function handed to the thread, and the place of its result."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._done = threading.Lock()
        self._done.acquire()
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run the function; on the thread."""
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def result(self) -> T:
        """Wait, and return or raise what the function does."""
        self._done.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle of error, traceback and this frame
        return self._result


class Worker:
    """A thread that runs one function at a time, in the order in which they were handed in."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._queue,), name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs: until it is told to stop, and not in a forked child."""
        return self._thread.is_alive()

    def submit(self, function: Callable[[], T]) -> Call[T]:
        """Hand ``function`` to the thread, which must not have been told to stop."""
        call = Call(function)
        self._queue.put(call)
        return call

    def stop(self) -> None:
        """Have the thread end after the calls that it was handed before."""
        self._queue.put(None)
        _ending.add(self._thread)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if threading.current_thread() is not self._thread:
            self._thread.join()


_ending: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def join_ending() -> None:
    """Wait for every thread that was told to stop."""
    for thread in list(_ending):
        thread.join()


def _serve(calls: queue.SimpleQueue[Call[Any] | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
        del call  # the arrays of a call are freed before the next one comes
