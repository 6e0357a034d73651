"""Environment variables that native code reads, set for as long as somebody needs them."""

from __future__ import annotations

import os
import threading


class SharedVariable:
    """A context in which an environment variable of this process has a value.

    Threads may be in it at the same time: the first to enter sets the variable, and the last to
    leave restores what was there before.

    Parameters
    ----------
    name
        The variable.
    value
        What it is within the context.
    """

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value
        self._lock = threading.Lock()
        self._inside = 0
        self._before: str | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = os.environ.get(self._name)
                os.environ[self._name] = self._value
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            if self._before is None:
                os.environ.pop(self._name, None)
            else:
                os.environ[self._name] = self._before
