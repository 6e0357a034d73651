"""What happens to open engines when the interpreter ends, and in a forked child."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

from ferplus_tvm.runtime import loader
from ferplus_tvm.runtime.threads import join_ending


class Closable(Protocol):
    """An engine, as seen from here."""

    def close(self) -> None:
        """Let go of everything."""

    def renew_lock(self) -> None:
        """Replace the lock."""


_engines: weakref.WeakSet[Closable] = weakref.WeakSet()


def track(engine: Closable) -> None:
    """Close an engine when the interpreter ends, and have it work in a forked child."""
    _engines.add(engine)


def _close_all() -> None:
    """Close what is open when the interpreter ends, and wait until the threads end.

    Python kills daemon threads then, and one that is killed on its way back from TVM's C++ takes
    the process down with it.
    """
    for engine in list(_engines):
        engine.close()
    join_ending()


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread that is gone there may have held them."""
    loader.renew_lock()
    for engine in list(_engines):
        engine.renew_lock()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
