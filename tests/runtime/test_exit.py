"""The end of the interpreter, while threads still use engines: no traceback, no crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

BEFORE = """
import sys, threading, time
import numpy as np
import ferplus_tvm as fer
faces = np.full((1, 1, 64, 64), 100, np.float32)
library = sys.argv[1]
"""

DAEMONS = """
begun = threading.Barrier(4)
def repeat():
    begun.wait()
    while True:
        work()
for _ in range(3):
    threading.Thread(target=repeat, daemon=True).start()
begun.wait()
time.sleep(float(sys.argv[2]))
print("end")
"""

WORK = {
    "predict": "engine = fer.load(library)\nwork = lambda: engine.predict(faces)",
    "scores": "engine = fer.load(library)\nwork = lambda: engine.scores(faces)",
    "load": """
def work():
    with fer.load(library) as own:
        own.scores(faces)
""",
    "never closed": "work = lambda: fer.load(library, checksum='manifest').scores(faces)",
}


@pytest.mark.parametrize("name", WORK)
def test_daemon_threads_leave_nothing_on_stderr(
    narrow_library: Path, run_python: Callable[..., str], name: str
) -> None:
    for seconds in (0.01, 0.2):
        code = BEFORE + WORK[name] + DAEMONS
        assert run_python(code, narrow_library, seconds) == "end\n"


def test_a_thread_that_outlives_the_main_one_opens_and_predicts(
    narrow_library: Path, run_python: Callable[..., str]
) -> None:
    code = (
        BEFORE
        + """
def late():
    threading.main_thread().join()
    with fer.load(library) as engine:
        print(engine.scores(faces).shape)
threading.Thread(target=late).start()
"""
    )
    assert run_python(code, narrow_library) == "(1, 8)\n"


def test_what_runs_after_the_engines_were_closed_is_told_so(
    narrow_library: Path, run_python: Callable[..., str]
) -> None:
    code = """
import atexit, sys
import numpy as np
def last():
    try:
        engine.scores(np.full((1, 1, 64, 64), 100))
    except fer.errors.EngineClosedError as error:
        print("closed" in str(error))
atexit.register(last)  # which therefore runs after the engine's own
import ferplus_tvm as fer
engine = fer.load(sys.argv[1])
"""
    assert run_python(code, narrow_library) == "True\n"
