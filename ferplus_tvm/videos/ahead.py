"""Run an iterator in a thread of its own, a bounded number of items ahead of who takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_LOOK = 1.0
"""Seconds between two looks at a condition: on Windows, Ctrl-C waits for them."""

_PATIENCE = 5.0
"""Seconds that `Ahead.join` waits for an item that is being made."""


class Ahead(Generic[T]):
    """The items of an iterator, made in a thread of their own.

    They keep their order.  What the iterator raises is raised where its next item would have come.

    Parameters
    ----------
    items
        Is asked for items, and closed at the end if it has a ``close``, in the thread alone.
    depth
        How many items are made before they are taken, at most.
    name
        The thread's.
    """

    def __init__(self, items: Iterator[T], depth: int, name: str) -> None:
        self._items = items
        self._depth = depth
        self._made: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._changed:
            while not self._changed.wait_for(self._answers, _LOOK):
                pass
            return self._take()

    def ready(self) -> bool:
        """Whether `next` would return or raise at once."""
        with self._changed:
            return self._answers()

    def stop(self) -> None:
        """Have the thread end soon; what is made is dropped."""
        with self._changed:
            self._stopped = True
            self._made.clear()
            self._changed.notify_all()

    def join(self) -> bool:
        """Return whether the thread has ended, for which this waits some seconds."""
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)
        return not self._thread.is_alive()

    def _answers(self) -> bool:
        return bool(self._made) or self._ended or self._stopped

    def _take(self) -> T:
        if self._made:
            item = self._made.popleft()
            self._changed.notify_all()
            return item
        error, self._error = self._error, None
        if error is None:
            raise StopIteration
        try:
            raise error
        finally:
            del error  # no cycle of error, traceback and this frame

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
                del item
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            try:
                if close is not None:
                    close()
            except Exception as error:
                self._error = self._error or error
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Hand over an item; return whether more are wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._made) < self._depth)
            if not self._stopped:
                self._made.append(item)
                self._changed.notify_all()
            return not self._stopped
