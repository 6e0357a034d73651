"""Ctrl-C as a flag: what is under way comes to an end of its own, and nothing is torn apart."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, however often, in place of raising at once.

    The interrupt is raised where the block ends.  In another thread than the main one there is
    nothing to hold: Python interrupts only that.

    Raises
    ------
    KeyboardInterrupt
        At the end, if the user asked for it meanwhile, also in place of what it made fail.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    asked = False

    def ask(*_: object) -> None:
        # Another signal may come while the event is being set, whose lock is none that may be
        # taken twice.
        nonlocal asked
        if not asked:
            asked = True
            interrupted.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interrupted
    except Exception:
        if not interrupted.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted.is_set():
        raise KeyboardInterrupt
