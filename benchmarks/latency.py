"""Time per face beside another engine or library: paired turns, each alone on the machine.

    python benchmarks/latency.py ferplus.so [--peer onnxruntime] [--threads 1] [--batch 1]
    python benchmarks/latency.py ferplus.so --peer other.so

Each turn calls one engine ``CALLS`` times, drops the first ones, and then waits until the engine's
threads have stopped spinning, so that neither disturbs the other; the order alternates.  The ratio
is the peer's time over ours, per pair of turns.  Both answer the same input, and the largest
difference of a score is printed: a peer that works at a lower precision shows in it.

The bundled model's weights are half-precision numbers, and its dense layers are stored as such.
``benchmarks/full_precision_model.py`` makes the same network with weights that are not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.importer import load_model
from ferplus_tvm.zoo import resolve

CALLS = 12
DROPPED = 2

Faces = NDArray[np.float32]
Engine = Callable[[Faces], Any]


def onnxruntime(model: bytes, threads: int, shape: tuple[int, ...]) -> Engine:
    """Open onnxruntime with its defaults but for the threads."""
    import onnxruntime

    del shape
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: session.run(None, {given.name: x})[0]


def openvino(model: bytes, threads: int, shape: tuple[int, ...], **properties: str) -> Engine:
    """Open OpenVINO for latency; by itself it takes bfloat16 where the CPU has it."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape(list(shape))
    compiled = core.compile_model(
        network,
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **properties},
    )
    request = compiled.create_infer_request()

    def run(x: Faces) -> Any:
        request.infer({0: x}, share_inputs=True)
        return request.get_output_tensor(0).data.copy()

    return run


PEERS: dict[str, Callable[[bytes, int, tuple[int, ...]], Engine]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-float32": lambda model, threads, shape: openvino(
        model, threads, shape, INFERENCE_PRECISION_HINT="f32"
    ),
}


def library(path: str, threads: int) -> Engine:
    """Open another library of ours."""
    engine = fer.load(path, threads=threads)
    return engine.scores


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
    parser.add_argument(
        "--peer", default="onnxruntime", help=f"{', '.join(PEERS)}, or another library's path"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()

    random = np.random.default_rng(0)
    x = random.integers(0, 256, (options.batch, 1, 64, 64)).astype(np.float32)
    if options.peer in PEERS:
        model = load_model(resolve(options.model)).proto  # the same graph, with its batch set free
        peer = PEERS[options.peer](model.SerializeToString(), options.threads, x.shape)
    else:
        peer = library(options.peer, options.threads)
    with fer.load(options.library, threads=options.threads) as engine:
        calls = {options.peer: lambda: peer(x), "ferplus_tvm": lambda: engine.scores(x)}
        theirs, ours = (call() for call in calls.values())
        difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
        times: dict[str, list[float]] = {name: [] for name in calls}
        for index in range(options.turns):
            for name in list(calls)[:: 1 if index % 2 else -1]:
                times[name].append(turn(calls[name]) / options.batch)
    ratios = np.divide(times[options.peer], times["ferplus_tvm"])
    low, high = np.percentile(ratios, [10, 90])
    print(f"batch {options.batch}, {options.threads} threads, ms per face, median of turns:")
    for name, values in times.items():
        print(f"  {name:<16} {statistics.median(values):7.3f}")
    print(f"  ratio {np.median(ratios):.2f} (10th..90th percentile {low:.2f}..{high:.2f})")
    print(f"  largest difference of a score {difference:.1e}, relative to the largest score")


if __name__ == "__main__":
    main()
