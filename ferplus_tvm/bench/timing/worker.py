"""What the process that one engine lives in does: see `host.child` for how it is called.

Every answer comes after the process has come to rest, so that the next engine has the machine for
itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ferplus_tvm.bench.engines.catalog import open_engine
from ferplus_tvm.bench.engines.opened import FaceShape, Opened, faces, off_float64
from ferplus_tvm.bench.timing import load, quiet


class Worker:
    """An engine, and what a call of it is."""

    def __init__(self) -> None:
        self._opened: Opened
        self._call: Callable[[], Any] = lambda: None

    def open(
        self, kind: str, path: str, threads: int, batch: int, face: FaceShape, device: str
    ) -> dict[str, Any]:
        """Open the engine, and return what it says of itself.

        ``off_float64`` is what `ferplus_tvm.bench.engines.opened.off_float64` finds of ours, and
        None of others.
        """
        self._opened = opened = open_engine(kind, path, threads, batch, face, device)
        self._faces = faces(batch, face)
        calls = {"scores": opened.scores, "on_gpu": opened.on_gpu}
        return {
            "precision": opened.precision,
            "version": opened.version,
            "ways": [way for way, call in calls.items() if call is not None],
            "off_float64": None if opened.engine is None else off_float64(opened.engine),
        }

    def begin_scores(self) -> dict[str, Any]:
        """Make a call the way from faces to scores on the host; return the scores."""
        run = self._opened.scores
        assert run is not None
        self._call = lambda: run(self._faces)
        return {"scores": np.asarray(self._call())}

    def begin_on_gpu(self) -> dict[str, Any]:
        """Make a call the way from faces to scores on the GPU; return the scores."""
        on_gpu = self._opened.on_gpu
        assert on_gpu is not None
        self._call = on_gpu.call
        return {"scores": np.asarray(on_gpu.read(self._call()))}

    def begin_jpeg(self, jpeg: bytes, labels: Sequence[str]) -> dict[str, Any]:
        """Make a call the way from a JPEG's bytes to one of the labels; return that."""
        from ferplus_tvm import postprocess, preprocess

        engine, run = self._opened.engine, self._opened.scores
        if engine is not None:
            self._call = lambda: engine.predict(jpeg).label
        else:
            assert run is not None
            _, channels, size, _ = self._faces.shape

            def label() -> str:
                face = preprocess(jpeg, size=size, channels=channels)
                return postprocess(run(face), labels)[0].label

            self._call = label
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
        engine = self._opened.engine
        assert engine is not None
        runs = [engine.on_session(lambda s: s.kernel_times(self._faces)) for _ in range(calls)]
        return {"runs": [[seconds for _, seconds in run] for run in runs]}

    def roofline(self, threads: int) -> dict[str, Any]:
        """Return this machine's roofline; see `ferplus_tvm.bench.timing.roofline`."""
        from ferplus_tvm.bench.timing import roofline

        # On the engine's thread, since TVM's pool of helpers is that of the calling thread.
        engine = self._opened.engine
        assert engine is not None
        told: dict[str, Any] = engine.on_session(lambda _: roofline.measure(threads))
        return told


_worker = Worker()


def answer(order: str, options: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, and return what came of it, an error too, as plain values.

    The exceptions of engines stay here: to read one, the parent would import the engine.
    """
    busy = time.process_time()
    try:
        told: dict[str, Any] = getattr(_worker, order)(**options)
    except Exception as error:
        told = {"error": str(error), "kind": type(error).__name__}
    told["rests"] = quiet.wait()
    told["cpu"] = time.process_time() - busy
    return told
