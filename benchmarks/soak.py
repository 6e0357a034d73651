"""Call a library for a while, and report how latency and memory drift.

    python benchmarks/soak.py ferplus.so --seconds 600

The first and the last tenth of the calls are compared: their medians, 99th percentiles, and the
ratio of each.  A machine's neighbours drift too, so look at the peers' drift in the same hour
(``ferplus-tvm bench``) before blaming the library.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import psutil

import ferplus_tvm as fer
from ferplus_tvm.artifact import reference_inputs

_WARM_UP = 50


def main() -> None:
    """Call, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    process = psutil.Process()
    with fer.load(options.library, threads=options.threads, device=options.device) as engine:
        faces = reference_inputs.inputs(1, options.batch, engine.face_shape)
        for _ in range(_WARM_UP):
            engine.scores(faces)
        before = process.memory_info().rss
        times = []
        end = time.perf_counter() + options.seconds
        while (start := time.perf_counter()) < end:
            engine.scores(faces)
            times.append(time.perf_counter() - start)
        grown = process.memory_info().rss - before
    tenth = max(1, len(times) // 10)
    first, last = (1e3 * np.asarray(part) for part in (times[:tenth], times[-tenth:]))
    print(f"{len(times)} calls in {options.seconds:g} s; memory grew by {grown / 1e6:.1f} MB")
    for name, at in (("median", 50), ("99th percentile", 99)):
        was, now = np.percentile(first, at), np.percentile(last, at)
        print(f"{name}: {was:.3f} ms at first, {now:.3f} ms at last, {now / was:.3f} times")


if __name__ == "__main__":
    main()
