"""What happens to open engines when the interpreter ends, and in a forked child."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from ferplus_tvm.runtime import loader
from ferplus_tvm.runtime.threads import join_ending


class Closable(Protocol):
    """An engine, as seen from here."""

    def close(self) -> None:
        """Let go of everything."""

    def renew_lock(self) -> None:
        """Replace the lock."""


@dataclass
class _State:
    """What the end of the interpreter waits for, and whether it has come.

    Attributes
    ----------
    changed
        Held while the others are read or written.
    opening
        The number of threads that open a library.
    ended
        Whether all engines have been closed, since the interpreter ends.
    """

    changed: threading.Condition = field(default_factory=threading.Condition)
    opening: int = 0
    ended: bool = False


_PATIENCE = 10  # seconds at the end for libraries that are being opened
_state = _State()
_engines: weakref.WeakSet[Closable] = weakref.WeakSet()


def track(engine: Closable) -> None:
    """Close an engine when the interpreter ends, and have it work in a forked child."""
    _engines.add(engine)


@contextmanager
def opening() -> Iterator[None]:
    """Have the end of the interpreter wait for the block, which opens a library.

    A daemon thread that comes after the end waits for the process to end.
    """
    state = _state
    with state.changed:
        counted = not state.ended
        state.opening += counted
    wait_at_the_end()
    try:
        yield
    finally:
        with state.changed:
            state.opening -= counted
            state.changed.notify_all()


def wait_at_the_end() -> None:
    """Have a daemon thread wait for the process to end, once the interpreter ends.

    All engines are closed then, and what a thread is told in vain would only be printed.
    """
    if _state.ended and threading.current_thread().daemon:
        threading.Event().wait()


def _close_all() -> None:
    """Close what is open when the interpreter ends, and wait until the threads end.

    Python kills daemon threads then, and one that is killed on its way back from TVM's C++ takes
    the process down with it.
    """
    with _state.changed:
        _state.ended = True
        _state.changed.wait_for(lambda: _state.opening == 0, _PATIENCE)
    for engine in list(_engines):
        engine.close()
    join_ending()


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread that is gone there may have held them."""
    global _state
    _state = _State()
    loader.renew_lock()
    for engine in list(_engines):
        engine.renew_lock()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
