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

from ferplus_tvm import child
from ferplus_tvm.bench import samples
from ferplus_tvm.bench.engines import OURS
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.runtime import library

_ASKED = "np.full((1, 1, 64, 64), 100, np.float32)"
_PROGRAMS = {
    OURS: f"""
import ferplus_tvm as fer
mark()
engine = fer.load(path, threads=threads)
mark()
engine.scores({_ASKED})
""",
    "onnxruntime": f"""
import onnxruntime
mark()
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
mark()
session.run(None, {{session.get_inputs()[0].name: {_ASKED}}})
""",
    "openvino": f"""
import openvino
mark()
core = openvino.Core()
network = core.read_model(path)
network.reshape([1, 1, 64, 64])
wanted = {{"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}}
request = core.compile_model(network, "CPU", wanted).create_infer_request()
mark()
request.infer({{0: {_ASKED}}})
""",
    "torch": f"""
import torch
mark()
from ferplus_tvm.bench.torch_model import of_onnx
torch.set_num_threads(threads)
network = of_onnx(path)
mark()
with torch.inference_mode():
    network(torch.from_numpy({_ASKED}))
""",
}
_BEFORE = """
import sys, time
moments = []
mark = lambda: moments.append(time.perf_counter())
path, threads = sys.argv[1], int(sys.argv[2])
mark()
import numpy as np
"""
_AFTER = """
mark()
print("answered", *(after - before for before, after in zip(moments, moments[1:])), flush=True)
sys.stdin.read()
"""

_SHARED = {"numpy", "pillow"}  # installed whatever the engine is


@dataclass(frozen=True)
class ColdStart:
    """What a first answer costs.

    seconds
        the median over new processes, from their start; the first of each is dropped, which
        fills the page cache.
    importing, opening, answering
        the median seconds of its parts, numpy's import being in the first; what is missing is the
        interpreter's own start.
    own_memory, resident_memory
        bytes after the answer: what only that process has, and all that it has mapped.
    installed
        bytes of the packages on the disk, but for numpy and Pillow, which every engine needs.
    model
        bytes of the library or the model file.
    """

    engine: str
    seconds: float
    importing: float
    opening: float
    answering: float
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
    taken: dict[str, list[Start]] = {name: [] for name in names}
    for run in range(runs + 1):
        for name in names[:: -1 if run % 2 else 1]:
            sample = start(name, files[name], threads)
            if run:
                taken[name].append(sample)
        progress(run / runs)
    found = []
    for name in names:
        medians = np.median([each.parts for each in taken[name]], axis=0)
        importing, opening, answering = (float(part) for part in medians)
        seconds = tuple(each.seconds for each in taken[name])
        found.append(
            ColdStart(
                name,
                float(np.median(seconds)),
                importing,
                opening,
                answering,
                seconds,
                int(np.median([each.own for each in taken[name]])),
                int(np.median([each.resident for each in taken[name]])),
                installed(name),
                Path(files[name]).stat().st_size,
            )
        )
    ours = found[0].samples
    first = [run % 2 == 1 for run in range(1, runs + 1)]
    ratios = [samples.paired_ratio(each.engine, each.samples, ours, first) for each in found[1:]]
    return found, ratios


@dataclass(frozen=True)
class Start:
    """One new process: its seconds, those of its three parts, own and resident memory."""

    seconds: float
    parts: tuple[float, ...]
    own: int
    resident: int


def start(name: str, path: str, threads: int) -> Start:
    """Start a process that gives one answer.

    Raises
    ------
    BenchError
        If it gives none.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        child.python("-c", _BEFORE + _PROGRAMS[name] + _AFTER, path, str(threads)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child.environment(),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    while line and not line.startswith("answered "):  # what the engine prints
        line = process.stdout.readline()
    seconds = time.perf_counter() - begin
    found = None
    if line:
        parts = tuple(float(part) for part in line.split()[1:])
        found = Start(seconds, parts, *_memory(process.pid))
    _, errors = process.communicate()
    if found is None:
        raise BenchError(
            f"a new process with {name} gave no answer ({last_line(Exception(errors))}): leave it "
            "out of --peers"
        )
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Return the bytes that only this process has, and all that it has mapped.

    Pages of a mapped file that are not written to are the same for all processes over the file;
    Linux tells them apart, elsewhere they count while there is only one.
    """
    import psutil

    process = psutil.Process(pid)
    if sys.platform == "linux":
        maps = process.memory_maps(grouped=True)
        return sum(each.private_dirty for each in maps), process.memory_info().rss
    told = process.memory_full_info()
    return told.uss, told.rss


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
