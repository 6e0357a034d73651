"""The process that one engine lives in: ``python -m ferplus_tvm.bench.worker``.

It takes orders as lines of JSON and answers each with one; what engines print goes to the standard
error output.  Every answer comes after the process has come to rest, so that the next engine has
the machine for itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ferplus_tvm.bench import engines, load, quiet


class Worker:
    """An engine, and what it is called with."""

    def __init__(self) -> None:
        self._opened: engines.Opened | None = None
        self._call: Callable[[], Any] = lambda: None

    def open(self, kind: str, path: str, threads: int, batch: int) -> dict[str, Any]:
        """Open the engine, and return what it says of itself and its scores for the faces."""
        self._opened = opened = engines.open_engine(kind, path, threads, batch)
        self._faces = engines.faces(batch)
        self._call = lambda: opened.run(self._faces)
        scores = [[float(score) for score in row] for row in self._call()]
        return {"precision": opened.precision, "version": opened.version, "scores": scores}

    def take_pictures(self, jpeg: str) -> dict[str, Any]:
        """From now on a call is the way from a JPEG's bytes to a label; return the label."""
        from ferplus_tvm import postprocess, preprocess

        assert self._opened is not None
        engine, run, encoded = self._opened.inside, self._opened.run, bytes.fromhex(jpeg)
        if engine is not None:
            self._call = lambda: engine.predict(encoded).label
        else:
            self._call = lambda: postprocess(run(preprocess(encoded)))[0].label
        return {"label": self._call()}

    def turn(self, calls: int, dropped: int) -> dict[str, Any]:
        """Call so often; return the seconds of all calls but the first ones, and the CPU's pace."""
        seconds = []
        for _ in range(calls + dropped):
            start = time.perf_counter()
            self._call()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds[dropped:], "pace": load.pace()}

    def single_stream(self, duration: float, queries: int) -> dict[str, Any]:
        """Call again and again, so many seconds and so often at least; return every call's."""
        latencies: list[float] = []
        end = time.perf_counter() + duration
        while len(latencies) < queries or time.perf_counter() < end:
            start = time.perf_counter()
            self._call()
            latencies.append(time.perf_counter() - start)
        return {"seconds": latencies}

    def offline(self, batches: int) -> dict[str, Any]:
        """Take one query of so many batches of faces."""
        start = time.perf_counter()
        for _ in range(batches):
            self._call()
        return {"seconds": time.perf_counter() - start}

    def layers(self, calls: int) -> dict[str, Any]:
        """Return the seconds of each kernel in each call of our own engine."""
        assert self._opened is not None
        on_session = self._opened.inside.on_session
        runs = [on_session(lambda s: s.kernel_times(self._faces)) for _ in range(calls)]
        return {"runs": [[seconds for _, seconds in run] for run in runs]}

    def limits(self, threads: int) -> dict[str, Any]:
        """Return what this machine can do at most; see `ferplus_tvm.bench.limits`."""
        from ferplus_tvm.bench import limits

        # On the engine's thread, since TVM's pool of helpers is that of the calling thread.
        assert self._opened is not None
        told: dict[str, Any] = self._opened.inside.on_session(lambda _: limits.measure(threads))
        return told


def main() -> None:
    """Answer orders until there are no more."""
    # Whatever engines print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        busy = time.process_time()
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:
            answer = {"error": str(error), "kind": type(error).__name__}
        answer["rests"] = quiet.wait()
        answer["cpu"] = time.process_time() - busy
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
