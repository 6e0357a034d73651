"""From the start of a process to its first answer: a new process for every sample."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferplus_tvm.bench import samples
from ferplus_tvm.bench.engines import OURS
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.runtime import library

_ASKED = "np.full((1, 1, 64, 64), 100, np.float32)"
_PROGRAMS = {
    OURS: f"""
import sys, numpy as np, ferplus_tvm as fer
engine = fer.load(sys.argv[1], threads=int(sys.argv[2]))
engine.scores({_ASKED})
""",
    "onnxruntime": f"""
import sys, numpy as np, onnxruntime
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
session.run(None, {{session.get_inputs()[0].name: {_ASKED}}})
""",
    "openvino": f"""
import sys, numpy as np, openvino
core = openvino.Core()
network = core.read_model(sys.argv[1])
network.reshape([1, 1, 64, 64])
wanted = {{"INFERENCE_NUM_THREADS": int(sys.argv[2]), "PERFORMANCE_HINT": "LATENCY"}}
request = core.compile_model(network, "CPU", wanted).create_infer_request()
request.infer({{0: {_ASKED}}})
""",
    "torch": f"""
import sys, numpy as np, torch
from ferplus_tvm.bench.torch_model import of_onnx
torch.set_num_threads(int(sys.argv[2]))
with torch.inference_mode():
    of_onnx(sys.argv[1])(torch.from_numpy({_ASKED}))
""",
}
_ANSWERED = 'print("answered", flush=True)\nsys.stdin.read()\n'

_SHARED = {"numpy", "pillow"}  # installed whatever the engine is


@dataclass(frozen=True)
class ColdStart:
    """What a first answer costs.

    seconds
        the median over new processes, from their start; the first of each is dropped, which
        fills the page cache.
    own_memory, resident_memory
        bytes after the answer: what only that process has, and all that it has mapped.
    installed
        bytes of the packages on the disk, but for numpy and Pillow, which every engine needs.
    model
        bytes of the library or the model file.
    """

    engine: str
    seconds: float
    samples: tuple[float, ...]
    own_memory: int
    resident_memory: int
    installed: int
    model: int


def measure(
    files: Mapping[str, str], threads: int, runs: int, progress: Callable[[float], None]
) -> tuple[list[ColdStart], list[samples.Ratio]]:
    """Start engines in turns, each over its file, so many times after a first one.

    Raises
    ------
    BenchError
        If one does not answer.
    """
    names = list(files)
    taken: dict[str, list[tuple[float, int, int]]] = {name: [] for name in names}
    for run in range(runs + 1):
        for name in names[:: -1 if run % 2 else 1]:
            sample = start(name, files[name], threads)
            if run:
                taken[name].append(sample)
        progress(run / runs)
    found = []
    for name in names:
        seconds, own, resident = zip(*taken[name], strict=True)
        found.append(
            ColdStart(
                name,
                float(np.median(seconds)),
                tuple(seconds),
                int(np.median(own)),
                int(np.median(resident)),
                installed(name),
                Path(files[name]).stat().st_size,
            )
        )
    ours = found[0].samples
    first = [run % 2 == 1 for run in range(1, runs + 1)]
    ratios = [samples.paired_ratio(each.engine, each.samples, ours, first) for each in found[1:]]
    return found, ratios


def start(name: str, path: str, threads: int) -> tuple[float, int, int]:
    """Start a process that gives one answer; return its seconds, own and resident memory."""
    import psutil

    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAMS[name] + _ANSWERED, path, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    while line and line != "answered\n":  # what the engine prints
        line = process.stdout.readline()
    seconds = time.perf_counter() - begin
    own = resident = 0
    if line:
        told = psutil.Process(process.pid).memory_full_info()
        own, resident = told.uss, told.rss
    _, errors = process.communicate()
    if not line:
        raise BenchError(
            f"a new process with {name} gave no answer ({last_line(Exception(errors))}): leave it "
            "out of --peers"
        )
    return seconds, own, resident


def installed(engine: str) -> int:
    """Return the bytes that an engine's packages have on the disk."""
    if engine != OURS:
        return sum(_size(package) for package in _with_dependencies(engine))
    own = Path(__file__).parents[1]
    total = sum(_size(package) for package in _with_dependencies("apache-tvm-ffi"))
    total += sum(file.stat().st_size for file in own.rglob("*") if file.is_file())
    runtime = library.installed()
    return total + (runtime.stat().st_size if runtime else 0)


def _with_dependencies(package: str) -> set[str]:
    from packaging.requirements import Requirement

    found: set[str] = set()
    wanted = [package]
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found or name in _SHARED:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _size(package: str) -> int:
    files = importlib.metadata.files(package) or []
    located = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in located if path.is_file())
