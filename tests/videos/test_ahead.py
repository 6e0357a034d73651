"""Iterators that run ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ferplus_tvm.videos.ahead import Ahead

NAME = "ahead of the test"


def alive() -> bool:
    return any(thread.name == NAME for thread in threading.enumerate())


def test_items_keep_their_order_and_the_end_is_the_end() -> None:
    ahead = Ahead(iter(range(100)), 3, NAME)
    assert list(ahead) == list(range(100))
    assert list(ahead) == [] and ahead.ready()
    assert ahead.join() and not alive()


def test_an_error_comes_after_what_was_made_before_it_and_once() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    ahead = Ahead(items(), 3, NAME)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert list(ahead) == []


def test_no_more_is_made_than_asked_for() -> None:
    made: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 7:
                enough.set()
            yield number

    ahead = Ahead(items(), 3, NAME)
    for number in range(4):
        assert next(ahead) == number
    assert enough.wait(10)  # 4 taken, 3 that wait, 1 that finds no room
    ahead.stop()
    assert ahead.join() and len(made) == 8


def test_stopping_ends_the_thread_and_closes_the_iterator() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    ahead = Ahead(items(), 2, NAME)
    next(ahead)
    ahead.stop()
    assert ahead.join() and not alive()
    assert closed == [NAME] and list(ahead) == []


def test_who_waits_for_an_item_is_let_go_when_it_stops() -> None:
    block = threading.Event()

    def items() -> Iterator[int]:
        block.wait()
        yield 1

    first = Ahead(items(), 1, NAME)
    second = Ahead(first, 1, NAME)
    first.stop()
    assert second.join()
    block.set()
    assert first.join() and list(second) == []
