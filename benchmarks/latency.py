"""Time per face beside onnxruntime: paired turns, each alone on the machine.

    python benchmarks/latency.py ferplus.so [--threads 1] [--batch 1] [--turns 40]

Each turn calls one engine ``CALLS`` times, drops the first ones, and then waits until the engine's
threads have stopped spinning, so that neither disturbs the other; the order alternates.  The ratio
is onnxruntime's time over ours, per pair of turns.  Both answer the same input, and the largest
difference of a score is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime

import ferplus_tvm as fer
from ferplus_tvm.importer import load_model
from ferplus_tvm.zoo import resolve

CALLS = 12
DROPPED = 2


def turn(call: Callable[[], object]) -> float:
    """Return the median time of a call, in milliseconds, and leave the process quiet."""
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    time.sleep(0.1)
    while True:
        busy = time.process_time()
        time.sleep(0.02)
        if time.process_time() - busy < 0.001:
            return 1e3 * statistics.median(seconds[DROPPED:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--model", default="bundled", help="the model that the library holds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    model = load_model(resolve(options.model)).proto  # the same graph, with its batch set free
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (options.batch, 1, 64, 64)).astype(np.float32)
    with fer.load(options.library, threads=options.threads) as engine:
        calls = {
            "onnxruntime": lambda: session.run(None, {given.name: x})[0],
            "ferplus_tvm": lambda: engine.scores(x),
        }
        theirs, ours = calls["onnxruntime"](), calls["ferplus_tvm"]()
        difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
        times: dict[str, list[float]] = {name: [] for name in calls}
        for index in range(options.turns):
            for name in list(calls)[:: 1 if index % 2 else -1]:
                times[name].append(turn(calls[name]) / options.batch)
    ratios = np.divide(times["onnxruntime"], times["ferplus_tvm"])
    low, high = np.percentile(ratios, [10, 90])
    print(f"batch {options.batch}, {options.threads} threads, ms per face, median of turns:")
    for name, values in times.items():
        print(f"  {name:<12} {statistics.median(values):7.3f}")
    print(f"  ratio {np.median(ratios):.2f} (10th..90th percentile {low:.2f}..{high:.2f})")
    print(f"  largest difference of a score {difference:.1e}, relative to the largest score")


if __name__ == "__main__":
    main()
