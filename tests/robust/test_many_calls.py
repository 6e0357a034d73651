"""Many threads, many calls, many engines: the same bits, and nothing that grows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import reference_inputs

RunPython = Callable[..., str]
THREADS = 16


@pytest.fixture(scope="module")
def narrow(narrow_library: Path) -> Iterator[fer.Engine]:
    with fer.load(narrow_library, threads=2) as opened:
        yield opened


def call_from_all_threads(engine: fer.Engine, calls: int) -> None:
    inputs = [reference_inputs.inputs(seed, 1 + seed % 4) for seed in range(32)]
    expected = [engine.scores(x).tobytes() for x in inputs]
    start = threading.Barrier(THREADS)

    def work(first: int) -> int:
        start.wait()
        return sum(
            engine.scores(inputs[(first + i) % 32]).tobytes() != expected[(first + i) % 32]
            for i in range(calls // THREADS)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0


def test_two_thousand_calls_of_sixteen_threads_give_the_same_bits(narrow: fer.Engine) -> None:
    call_from_all_threads(narrow, 2_000)


@pytest.mark.long
def test_a_hundred_thousand_calls_of_sixteen_threads_give_the_same_bits(
    narrow: fer.Engine,
) -> None:
    call_from_all_threads(narrow, 100_000)


CYCLES = """
import gc, os, sys, time
import numpy as np
import ferplus_tvm as fer
x = np.zeros((2, 1, 64, 64), np.float32)
def held():
    gc.collect()
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return (
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )
def cycle():
    with fer.load(sys.argv[1], threads=2, checksum="manifest") as engine:
        engine.scores(x)
for _ in range(50):
    cycle()
for round in range(3):  # an allocator may take some megabytes once, a leak takes them each time
    before = held()
    for _ in range(int(sys.argv[2])):
        cycle()
    for _ in range(500):  # the last helpers end by themselves
        after = held()
        if after[1:] <= before[1:]:
            break
        time.sleep(0.01)
    if after[0] - before[0] < 3:  # megabytes
        break
assert after[0] - before[0] < 3, (before, after)
assert after[1] <= before[1] and after[2] <= before[2], (before, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_engines_over_one_file_leave_nothing(
    narrow_library: Path, run_python: RunPython
) -> None:
    run_python(CYCLES, narrow_library, "100", timeout=300)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_engines_over_one_file_leave_nothing(
    narrow_library: Path, run_python: RunPython
) -> None:
    run_python(CYCLES, narrow_library, "1000", timeout=900)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_copy_of_a_library_costs_no_more_than_the_file_itself(
    narrow_library: Path, tmp_path: Path, run_python: RunPython
) -> None:
    """Code is kept by what it is, not by where it lies."""
    code = """
import shutil, sys
import ferplus_tvm as fer
def mapped():
    return sum("r-xp" in line for line in open("/proc/self/maps"))
fer.load(sys.argv[1]).close()
before = mapped()
for number in range(20):
    path = shutil.copy(sys.argv[1], f"{sys.argv[2]}/{number}.so")
    fer.load(path).close()
assert mapped() == before
"""
    run_python(code, narrow_library, tmp_path)


def test_the_smallest_numbers_are_as_good_as_zero(narrow: fer.Engine) -> None:
    tiny = np.full((1, 1, 64, 64), np.finfo(np.float32).smallest_subnormal)
    zeros = np.zeros((1, 1, 64, 64), np.float32)
    np.testing.assert_allclose(narrow.scores(tiny), narrow.scores(zeros), rtol=1e-6, atol=1e-6)
