"""From process start to the first answer, and memory, beside onnxruntime: new processes in turns.

    python benchmarks/cold_start.py ferplus.so [--model MODEL] [--runs 20]

Memory is that of the whole process after the first answer: private (written pages,
which a second process needs again) and resident.  Linux only, since it reads /proc.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ferplus_tvm.zoo import resolve

_MEMORY = """
rollup = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if "kB" in line)
print(rollup["Private_Dirty:"], rollup["Rss:"])
"""
OURS = """
import sys, numpy as np, ferplus_tvm as fer
engine = fer.load(sys.argv[1], threads=int(sys.argv[2]))
engine.scores(np.full((1, 1, 64, 64), 100, np.float32))
"""
THEIRS = """
import sys, numpy as np, onnxruntime
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
session.run(None, {name: np.full((1, 1, 64, 64), 100, np.float32)})
"""


def start(program: str, *arguments: str) -> tuple[float, float, float]:
    """Run a program to its first answer; return seconds, private and resident megabytes."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program + 'print("answered", flush=True)' + _MEMORY, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    answered = process.stdout.readline()
    seconds = time.perf_counter() - begin
    private, resident = process.stdout.read().split()
    assert process.wait() == 0 and answered == "answered\n"
    return seconds, int(private) / 1024, int(resident) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--model", default="bundled", help="the model that the library holds")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    programs = {
        "ferplus_tvm": (OURS, str(Path(options.library).resolve()), options.threads),
        "onnxruntime": (THEIRS, str(resolve(options.model)), options.threads),
    }
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
    for index in range(options.runs + 1):
        for name, program in programs.items():
            sample = start(*program)
            if index:  # the first of each fills the page cache
                samples[name].append(sample)
    for name, rows in samples.items():
        seconds, private, resident = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(f"{name:<12} {seconds:.3f} s, {private:.0f} MB private, {resident:.0f} MB resident")
    pairs = zip(samples["onnxruntime"], samples["ferplus_tvm"], strict=True)
    ratio = statistics.median(theirs[0] / ours[0] for theirs, ours in pairs)
    print(f"ratio        {ratio:.2f} (onnxruntime's time over ours)")


if __name__ == "__main__":
    main()
