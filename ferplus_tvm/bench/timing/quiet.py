"""When a process has come to rest: no thread of it looks for work any more."""

from __future__ import annotations

import time

_STEP = 0.02
_RESTING = 0.05  # of a CPU
_LONGEST = 3.0


def wait() -> bool:
    """Return when this process has used hardly any CPU time for a while; False if it never does.

    Engines keep their threads spinning after a call, onnxruntime for some 40 ms.
    """
    end = time.perf_counter() + _LONGEST
    while time.perf_counter() < end:
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(_STEP)
        if time.process_time() - busy < _RESTING * (time.perf_counter() - start):
            return True
    return False
