"""Mixed load for a while: nothing grows, and every answer is the first one's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ferplus_tvm.data import SAMPLE_FACE

RunPython = Callable[..., str]

SOAK = """
import gc, os, sys, threading, time
import numpy as np
import ferplus_tvm as fer
from ferplus_tvm.errors import FerplusError, InputError

library, image, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
content = open(image, "rb").read()
face = fer.preprocess(image)
engine = fer.load(library, threads=2)
wanted = engine.scores(face).tobytes()
batches = [np.repeat(face, 1 + n, 0) for n in range(9)]
many = [engine.scores(batch).tobytes() for batch in batches]
label = engine.predict(image).label
end = time.monotonic() + seconds
counts, wrong = {}, []

def forever(name, job):
    counts[name] = 0
    while time.monotonic() < end:
        try:
            if not job(counts[name]):
                wrong.append(name)
        except BaseException as error:
            wrong.append((name, repr(error)))
            return
        counts[name] += 1

def refused(error, function):
    try:
        function()
    except error:
        return True

def bad_batch(_):
    answers = engine.predict_batch([content, content[:900], face], on_error="skip")
    return [a and a.label for a in answers] == [label, None, label]

def reopened(_):
    with fer.load(library, threads=1) as other:
        return other.scores(face).tobytes() == wanted

jobs = {
    "scores": lambda n: engine.scores(batches[n % 9]).tobytes() == many[n % 9],
    "images": lambda n: engine.predict(content).label == label,
    "bad images": lambda n: refused(InputError, lambda: engine.predict(content[: 50 + n % 800])),
    "bad arrays": lambda n: refused(InputError, lambda: engine.scores(face * np.nan)),
    "bad batches": bad_batch,
    "engines": reopened,
}

def resident():
    gc.collect()
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

begun = (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
threads = [threading.Thread(target=forever, args=job) for job in jobs.items()]
for thread in threads:
    thread.start()
memory = []
while time.monotonic() < end:
    time.sleep(seconds / 40)
    memory.append(resident())
for thread in threads:
    thread.join()
for _ in range(500):  # helpers of closed engines end by themselves
    left = (len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))
    if left <= begun:
        break
    time.sleep(0.01)
assert left[0] <= begun[0] and left[1] <= begun[1], (begun, left)
assert not wrong, wrong[:3]
assert all(counts[name] > 3 for name in jobs), counts
# The lowest of a quarter, since what is under way comes on top.
early, late = min(memory[10:20]), min(memory[-10:])
print(counts, early, late)
assert late - early < 6, memory  # megabytes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "seconds",
    [8, pytest.param(60, marks=pytest.mark.long), pytest.param(600, marks=pytest.mark.long)],
)
def test_mixed_load_grows_nothing(
    narrow_library: Path, run_python: RunPython, seconds: int
) -> None:
    run_python(SOAK, narrow_library, SAMPLE_FACE, seconds, timeout=140 + 1.5 * seconds)
