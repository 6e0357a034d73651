"""Forked, spawned and ending processes.  Each test is a Python of its own that may not hang."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., str]

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

START = """
import os, sys, threading, time
import numpy as np
import ferplus_tvm as fer
engine = fer.load(sys.argv[1], threads=2)
x = np.random.RandomState(0).randint(0, 256, (12, 1, 64, 64)).astype(np.float32)
want = engine.scores(x).tobytes()

def same():
    return engine.scores(x).tobytes() == want

def fork(child):
    '''Run child in a forked process; return whether it was content.'''
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if child() else 3)
        finally:
            os._exit(4)
    for _ in range(1000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False
"""


@fork
def test_a_forked_child_goes_on_with_the_parents_engine(
    library: Path, run_python: RunPython
) -> None:
    code = """
assert fork(lambda: same() and same() and fork(same))  # and so does its own child
assert same()
assert fork(same)
"""
    run_python(START + code, library)


@fork
def test_a_child_forked_in_the_middle_of_calls_goes_on(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
stop = threading.Event()
def busy():
    while not stop.is_set():
        engine.scores(x)
callers = [threading.Thread(target=busy) for _ in range(3)]
for caller in callers:
    caller.start()
contents = [fork(same) for _ in range(25)]
stop.set()
for caller in callers:
    caller.join()
assert all(contents), contents
assert same()
"""
    run_python(START + code, narrow_library)


@fork
def test_a_child_that_makes_no_call_starts_no_thread(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
others = [fer.load(sys.argv[1], threads=1) for _ in range(3)]
assert fork(lambda: threading.active_count() == 1)
assert fork(lambda: threading.active_count() == 1 and same() and threading.active_count() == 2)
if sys.platform == "linux":
    assert fork(lambda: len(os.listdir("/proc/self/task")) == 1)
"""
    run_python(START + code, narrow_library)


@fork
def test_a_child_may_close_the_engine_called_or_not_and_open_it_again(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
def unused():
    engine.close()
    engine.close()
    try:
        engine.scores(x)
    except fer.errors.EngineClosedError:
        with fer.load(sys.argv[1]) as again:
            return again.scores(x).tobytes() == want

def used():
    return same() and unused()

def forgotten():
    global engine
    del engine
    with fer.load(sys.argv[1]) as again:
        return again.scores(x).tobytes() == want

assert fork(unused) and fork(used) and fork(forgotten)
assert same()
"""
    run_python(START + code, narrow_library)


@fork
def test_a_child_can_open_a_library_while_a_thread_of_the_parent_was_opening_one(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
from ferplus_tvm.runtime import loader
# As a thread that is gone in the child would have held them.
with loader._state.lock, engine._library._lock:
    def child():
        with fer.load(sys.argv[1]) as again:
            return again.scores(x).tobytes() == want and same()
    assert fork(child)
"""
    run_python(START + code, narrow_library)


@fork
def test_a_forked_child_ends_as_any_program_does(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
statuses = []
for call in (False, True):
    pid = os.fork()
    if pid == 0:
        if call:
            assert same()
        sys.exit(7)  # with everything that Python does at the end, unlike os._exit
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
assert statuses == [7, 7], statuses
assert same()
"""
    run_python(START + code, narrow_library)


METHODS = [pytest.param("fork", marks=fork), "spawn"]


@pytest.mark.parametrize("method", METHODS)
def test_worker_processes_take_an_engine(
    narrow_library: Path, run_python: RunPython, method: str
) -> None:
    code = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = list(pool.map(engine.scores, [x] * 4, timeout=50))  # pickles the engine
    assert [answer.tobytes() for answer in answers] == [want] * 4
    process = context.Process(target=engine.predict, args=(x[0, 0],))
    process.start()
    process.join(50)
    assert process.exitcode == 0, process.exitcode
    assert same()
"""
    run_python(START + code, narrow_library, method)


# --- the end of a process --------------------------------------------------------------------


def test_a_program_may_end_with_an_open_engine(narrow_library: Path, run_python: RunPython) -> None:
    run_python(START + "assert same()", narrow_library)


def test_a_program_may_end_in_the_middle_of_a_call(library: Path, run_python: RunPython) -> None:
    code = """
started = threading.Event()
def busy():
    started.set()
    try:
        while True:
            engine.scores(x)
    except fer.errors.EngineClosedError:
        print("closed")
threading.Thread(target=busy, daemon=True).start()
started.wait()
time.sleep(0.05)
"""
    for _ in range(3):
        run_python(START + code, library)


@pytest.mark.skipif(sys.platform == "win32", reason="sets an alarm")
def test_an_interrupted_program_may_end_although_its_call_goes_on(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
import signal
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
many = np.concatenate([x] * 500)
def use():
    local = fer.load(sys.argv[1], threads=2)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while True:
        local.scores(many)
try:
    use()
except KeyboardInterrupt:
    print("interrupted")
"""
    for _ in range(3):
        assert run_python(START + code, narrow_library).split() == ["interrupted"]


def test_a_function_that_runs_at_the_end_may_still_call(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = "import atexit; atexit.register(lambda: print(same()))"

    assert run_python(START + code, narrow_library).split() == ["True"]


# --- what an engine takes and gives back -----------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fifty_engines_leave_no_file_thread_or_mapping_behind(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
import gc
def held():
    gc.collect()
    names = [line.split()[-1] for line in open("/proc/self/maps")]
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "library": sum(name.endswith("narrow.so") for name in names),
        "all": len(names),
    }
def cycle(close):
    opened = fer.load(sys.argv[1], threads=2, checksum="manifest")
    assert opened.scores(x).tobytes() == want
    if close:
        opened.close()
for _ in range(5):
    cycle(True)
before = held()
for turn in range(50):
    cycle(close=turn % 2)
for _ in range(500):  # a forgotten engine's thread ends by itself
    after = held()
    more = after.pop("all") - before["all"]
    level = all(after[what] <= before[what] for what in after)
    if level and more <= 20:  # the allocator's arenas vary
        break
    time.sleep(0.01)
else:
    raise AssertionError((before, after, more))
"""
    run_python(START + code, narrow_library)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_weights_are_used_in_place(
    library: Path, other_library: Path, run_python: RunPython
) -> None:
    code = """
import sys
import numpy as np
import ferplus_tvm as fer

def dirty():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) / 1024

fer.load(sys.argv[2]).scores(np.zeros((1, 1, 64, 64)))  # TVM's runtime and first buffers
before = dirty()
engines = [fer.load(sys.argv[1], threads=1) for _ in range(4)]
loaded = dirty()
for engine in engines:
    engine.scores(np.zeros((1, 1, 64, 64)))
print(loaded - before)

# The mapping that holds the weights, of each engine: nothing of it is this process's own copy.
sizes, written = [], []
inside = False
for line in open("/proc/self/smaps"):
    head = line.split()[0]
    if "-" in head:
        inside = line.rstrip().endswith(sys.argv[1])
    elif inside and head == "Size:":
        sizes.append(int(line.split()[1]))
    elif inside and head == "Private_Dirty:":
        written.append(int(line.split()[1]))
whole = [kb for size, kb in zip(sizes, written) if size > 30 * 1024]
print(len(whole), sum(whole))
"""
    growth, mappings, written = run_python(code, library, other_library).split()

    assert library.stat().st_size > 30e6
    assert float(growth) < 8  # MiB for four engines over 35 MB of weights
    assert int(mappings) == 4 and int(written) == 0
