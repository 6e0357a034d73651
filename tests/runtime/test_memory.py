"""Memory of a loaded engine: none that grows, and no more of its own than onnxruntime has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ferplus_tvm.zoo import resolve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PRIVATE = """
import sys, numpy as np
def private():
    rollup = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if "kB" in line)
    return int(rollup["Private_Dirty:"]) / 1024
"""
OURS = """
import ferplus_tvm as fer
engine = fer.load(sys.argv[1], threads=2)
call = lambda n: engine.scores(np.full((n, 1, 64, 64), 100, np.float32))
"""
THEIRS = """
import onnxruntime
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = 2
session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
call = lambda n: session.run(None, {name: np.full((n, 1, 64, 64), 100, np.float32)})
"""


def test_calls_allocate_nothing_that_grows(library: Path, run_python: Callable[..., str]) -> None:
    # Every batch size first, since each keeps the memory of its maps.
    measure = """
for n in (8, 3, 1): call(n)
before = private()
for _ in range(300): call(1)
for _ in range(30): call(8); call(3)
print(private() - before)
"""
    grown = float(run_python(PRIVATE + OURS + measure, library))
    assert grown < 1, f"{grown:.1f} MB more after 360 calls"


def test_an_engine_has_no_more_memory_of_its_own_than_onnxruntime(
    library: Path, run_python: Callable[..., str]
) -> None:
    measure = """
for _ in range(5): call(1)
print(private())
"""
    ours = float(run_python(PRIVATE + OURS + measure, library))
    theirs = float(run_python(PRIVATE + THEIRS + measure, resolve("bundled")))
    assert ours <= theirs
