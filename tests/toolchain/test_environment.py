"""The environment variable that keeps TVM from compiling CUDA code, under several threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from ferplus_tvm.toolchain.cuda_compiler import kernels_as_source
from ferplus_tvm.toolchain.environment import SharedVariable

NAME = "FERPLUS_TVM_TEST_VARIABLE"


@pytest.fixture(params=[None, "as it was"])
def before(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    value: str | None = request.param
    monkeypatch.delenv(NAME, raising=False)
    if value is not None:
        monkeypatch.setenv(NAME, value)
    return value


def test_it_is_set_until_the_last_leaves(before: str | None) -> None:
    variable = SharedVariable(NAME, "1")
    first, second = ExitStack(), ExitStack()
    first.enter_context(variable)
    second.enter_context(variable)
    assert os.environ[NAME] == "1"
    first.close()  # which entered first, and leaves first
    assert os.environ[NAME] == "1"
    second.close()
    assert os.environ.get(NAME) == before


def test_an_error_within_restores_it(before: str | None) -> None:
    variable = SharedVariable(NAME, "1")
    with pytest.raises(ZeroDivisionError), variable, variable:
        raise ZeroDivisionError
    assert os.environ.get(NAME) == before


def test_threads_that_come_and_go_never_find_it_unset(before: str | None) -> None:
    variable = SharedVariable(NAME, "1")
    start = threading.Barrier(8)

    def often(_: int) -> set[str | None]:
        start.wait(timeout=60)
        seen = set()
        for _ in range(500):
            with variable:
                seen.add(os.environ.get(NAME))
        return seen

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(often, range(8))) == {"1"}
    assert os.environ.get(NAME) == before


def test_the_context_of_the_compiler_is_one_for_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "TVM_COMPILE_FORCE_FALLBACK"
    monkeypatch.delenv(name, raising=False)
    entered, left = threading.Event(), threading.Event()

    def another() -> None:
        with kernels_as_source():
            entered.set()
            assert left.wait(timeout=60)
            assert os.environ[name] == "1"

    with ThreadPoolExecutor(1) as pool:
        with kernels_as_source():
            running = pool.submit(another)
            assert entered.wait(timeout=60)
        left.set()
        running.result(timeout=60)
    assert name not in os.environ
