"""Functions that are called in a process of their own."""

from __future__ import annotations

import ctypes
import math
import operator
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ferplus_tvm.host import child
from ferplus_tvm.host.child import Child, ChildDiedError, ChildTimeoutError


def test_a_function_is_called_in_another_process() -> None:
    with Child() as process:
        assert process.call(math.hypot, 3.0, 4.0, timeout=60) == 5
        assert process.call(os.getpid, timeout=60) != os.getpid()


def test_calls_share_the_process_and_what_they_leave_in_it(tmp_path: Path) -> None:
    with Child() as process:
        pid = process.call(os.getpid, timeout=60)
        process.call(os.chdir, tmp_path, timeout=60)
        assert process.call(os.getcwd, timeout=60) == str(tmp_path.resolve())
        assert process.call(os.getpid, timeout=60) == pid


def test_what_the_function_raises_is_raised_here_and_the_process_goes_on() -> None:
    with Child() as process:
        with pytest.raises(ZeroDivisionError):
            process.call(operator.floordiv, 1, 0, timeout=60)
        with pytest.raises(FileNotFoundError):
            process.call(os.listdir, "/no/such/folder", timeout=60)
        assert process.call(operator.add, 1, 2, timeout=60) == 3


def test_a_result_that_cannot_be_pickled_is_an_error_and_the_process_goes_on() -> None:
    with Child() as process:
        with pytest.raises(Exception, match="pickle"):
            process.call(os.scandir, ".", timeout=60)
        assert process.call(operator.add, 1, 2, timeout=60) == 3


@pytest.mark.skipif(os.name == "nt", reason="ends by signals")
def test_a_crash_of_native_code_is_an_error_that_names_the_signal() -> None:
    with Child() as process, pytest.raises(ChildDiedError) as caught:
        process.call(ctypes.string_at, 0, timeout=60)
    assert caught.value.how == f"by {signal.SIGSEGV.name}"


def test_the_last_line_that_a_dead_process_printed_is_told() -> None:
    with Child() as process:
        process.call(os.write, 1, b"first\nLLVM ERROR: no memory\n\n", timeout=60)
        with pytest.raises(ChildDiedError) as caught:
            process.call(os._exit, 7, timeout=60)
    assert (caught.value.how, caught.value.last_line) == ("with status 7", "LLVM ERROR: no memory")


def test_what_takes_too_long_is_ended_and_later_calls_fail() -> None:
    with Child() as process:
        process.call(os.getpid, timeout=60)
        with pytest.raises(ChildTimeoutError):
            process.call(time.sleep, 600, timeout=0.2)
        with pytest.raises(ChildDiedError):
            process.call(os.getpid, timeout=60)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="asks by signals whether a process is there")
def test_it_ends_when_it_is_closed() -> None:
    process = Child()
    pid = process.call(os.getpid, timeout=60)
    assert alive(pid)
    process.close()
    process.close()
    assert not alive(pid)


@pytest.mark.skipif(os.name == "nt", reason="asks by signals whether a process is there")
def test_it_ends_with_its_parent_in_the_middle_of_a_call(run_python: Callable[..., str]) -> None:
    code = """
import os, threading, time
from ferplus_tvm.host.child import Child
process = Child()
print(process.call(os.getpid, timeout=60), flush=True)
threading.Thread(target=lambda: process.call(time.sleep, 600, timeout=700), daemon=True).start()
time.sleep(0.5)
os._exit(0)
"""
    pid = int(run_python(code))
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_it_finds_this_package_and_nothing_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "pickle", "ferplus_tvm"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with Child() as process:
        assert process.call(child.python, "-c", timeout=60) == child.python("-c")
