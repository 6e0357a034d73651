import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.host import cpu
from ferplus_tvm.runtime.threads import Worker
from tests.network import faces

RunPython = Callable[..., str]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets the affinity")


def test_the_default_is_one_thread_per_cpu_allowed(narrow_library: Path) -> None:
    with fer.load(narrow_library) as engine:
        assert engine.threads == cpu.default_threads()


@linux
def test_the_callers_affinity_stays(narrow_library: Path) -> None:
    before = os.sched_getaffinity(0)

    with fer.load(narrow_library, threads=2) as engine:
        assert os.sched_getaffinity(0) == before
        engine.scores(faces(3))
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


@linux
def test_all_threads_stay_on_the_cpus_that_the_process_was_given(
    narrow_library: Path, run_python: RunPython
) -> None:
    code = """
import os, sys
from pathlib import Path
one = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {one})
import numpy as np
import ferplus_tvm as fer
x = np.zeros((3, 1, 64, 64), np.float32)
default = fer.load(sys.argv[1])
assert default.threads == 1, default
engine = fer.load(sys.argv[1], threads=3)
assert engine.threads == 1, engine
default.scores(x), engine.scores(x)
assert os.sched_getaffinity(0) == {one}
tasks = list(Path("/proc/self/task").iterdir())
assert len(tasks) >= 3, tasks  # the main thread and the engines' own
for task in tasks:
    lines = (task / "status").read_text().splitlines()
    (allowed,) = [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")]
    assert allowed == str(one), (task, allowed)
"""
    run_python(code, narrow_library)


@linux
@pytest.mark.parametrize("threads", [1, 2])
def test_an_engine_starts_as_many_threads_as_it_was_given(
    narrow_library: Path, threads: int
) -> None:
    if threads > len(cpu.allowed()):
        pytest.skip("this process may use one CPU only")
    before = set(os.listdir("/proc/self/task"))

    with fer.load(narrow_library, threads=threads) as engine:
        engine.scores(faces(3))
        started = set(os.listdir("/proc/self/task")) - before
        assert len(started) == threads
        for task in started:  # and every one of them may use every CPU
            assert os.sched_getaffinity(int(task)) == os.sched_getaffinity(0)


def test_an_idle_engine_burns_no_cpu(library: Path, run_python: RunPython) -> None:
    code = """
import sys, time
import numpy as np
import ferplus_tvm as fer
engine = fer.load(sys.argv[1], threads=2)
x = np.zeros((8, 1, 64, 64), np.float32)
spent = []
for _ in range(3):
    engine.scores(x)
    start = time.process_time()
    time.sleep(0.3)
    spent.append(time.process_time() - start)
print(min(spent))
"""
    # CPU seconds of all threads; TVM's own setting burns 0.145 of them.
    assert float(run_python(code, library)) <= 0.003


def test_sixteen_threads_share_one_engine(engine: fer.Engine) -> None:
    inputs = [faces(1 + seed % 4, seed=seed) for seed in range(32)]
    expected = [engine.scores(x).tobytes() for x in inputs]
    start = threading.Barrier(16)

    def work(first: int) -> list[bytes]:
        start.wait()
        return [engine.scores(inputs[(first + i) % 32]).tobytes() for i in range(4)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(work, range(16)))

    for first, answer in enumerate(answers):
        assert answer == [expected[(first + i) % 32] for i in range(4)]


def test_several_engines_work_at_once(library: Path, engine: fer.Engine) -> None:
    x = faces(3)
    expected = engine.scores(x).tobytes()
    engines = [fer.load(library, threads=1, checksum="manifest") for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda e: [e.scores(x).tobytes() for _ in range(3)], engines))

    for opened in engines:
        opened.close()
    assert answers == [[expected] * 3] * 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="sets an alarm")
def test_a_caller_who_is_interrupted_leaves_the_engine_usable(engine: fer.Engine) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    x = faces(2)
    expected = engine.scores(x).tobytes()
    long = np.concatenate([x] * 100)
    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            while True:  # however fast the machine is
                engine.scores(long)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)

    assert engine.scores(x).tobytes() == expected


def test_an_error_on_the_engines_thread_reaches_the_caller_and_the_thread_lives_on() -> None:
    worker = Worker("test")

    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result()

    assert worker.submit(lambda: threading.current_thread().name).result() == "test"
    worker.stop()
    worker.join()
    assert not worker.alive


def test_functions_run_in_the_order_in_which_they_were_handed_in() -> None:
    worker = Worker("test")
    seen: list[int] = []

    calls = [worker.submit(lambda i=i: seen.append(i)) for i in range(50)]  # type: ignore[misc]
    for call in reversed(calls):
        call.result()
    worker.stop()
    worker.join()

    assert seen == list(range(50))
