"""From the start of a process to its first answer: a new process for every sample."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferplus_tvm.bench import samples
from ferplus_tvm.bench.engines import OURS
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.host import child, runtime_library
from ferplus_tvm.records.find import shipped

_ASKED = "np.full((1, 1, 64, 64), 100, np.float32)"
_OPENVINO = """
import openvino
mark()
core = openvino.Core()
network = core.read_model(path)
network.reshape([1, 1, 64, 64])
wanted = {{"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"{more}}}
request = core.compile_model(network, "CPU", wanted).create_infer_request()
mark()
request.infer({{0: {asked}}})
"""
PROGRAMS = {
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
    "openvino": _OPENVINO.format(asked=_ASKED, more=""),
    "openvino-float32": _OPENVINO.format(asked=_ASKED, more=', "INFERENCE_PRECISION_HINT": "f32"'),
}
"""A program for each kind of engine, with what a user writes and nothing of this package's.

PyTorch has none, since our own code reads the model there.
"""

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

_PATIENCE = 120.0  # seconds for the first answer
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
    written_memory
        bytes after the answer of pages that only this process has and has written to, so that a
        second process needs as many again; None where the system does not tell them apart.
    private_memory, resident_memory
        bytes of all pages that no other process has just now, those of files among them, and of
        all that it has mapped.
    installed
        bytes of the packages on the disk, but for numpy and Pillow, which every engine needs; None
        where a package does not list its files.
    model
        bytes of the library or the model file.
    """

    engine: str
    threads: int
    seconds: float
    importing: float
    opening: float
    answering: float
    samples: tuple[float, ...]
    written_memory: int | None
    private_memory: int
    resident_memory: int
    installed: int | None
    model: int


@dataclass(frozen=True)
class Program:
    """What is started: an engine's label in the report, its kind, and its file."""

    label: str
    kind: str
    path: str


def measure(
    programs: Sequence[Program], threads: int, runs: int, progress: Callable[[float], None]
) -> tuple[list[ColdStart], list[samples.Ratio]]:
    """Start engines in turns, ours first, so many times after a first one.

    Raises
    ------
    BenchError
        If one does not answer.
    """
    taken: list[list[Start]] = [[] for _ in programs]
    for run in range(runs + 1):
        for at in range(len(programs))[:: -1 if run % 2 else 1]:
            sample = start(programs[at].kind, programs[at].path, threads)
            if run:
                taken[at].append(sample)
        progress(run / runs)
    found = []
    for program, starts in zip(programs, taken, strict=True):
        medians = np.median([each.parts for each in starts], axis=0)
        importing, opening, answering = (float(part) for part in medians)
        seconds = tuple(each.seconds for each in starts)
        written = [each.written for each in starts if each.written is not None]
        found.append(
            ColdStart(
                program.label,
                threads,
                float(np.median(seconds)),
                importing,
                opening,
                answering,
                seconds,
                int(np.median(written)) if written else None,
                int(np.median([each.private for each in starts])),
                int(np.median([each.resident for each in starts])),
                installed(program.kind),
                Path(program.path).stat().st_size,
            )
        )
    ours = found[0].samples
    first = [run % 2 == 1 for run in range(1, runs + 1)]
    ratios = [samples.paired_ratio(each.engine, each.samples, ours, first) for each in found[1:]]
    return found, ratios


@dataclass(frozen=True)
class Start:
    """One new process: its seconds and those of its three parts, and the bytes of its memory."""

    seconds: float
    parts: tuple[float, ...]
    written: int | None
    private: int
    resident: int


def start(kind: str, path: str, threads: int) -> Start:
    """Start a process that gives one answer.

    Raises
    ------
    BenchError
        If it gives none.
    """
    with tempfile.TemporaryFile() as noise:
        begin = time.perf_counter()
        process = subprocess.Popen(
            child.python("-c", _BEFORE + PROGRAMS[kind] + _AFTER, path, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            env=child.environment(),
        )
        late = threading.Timer(_PATIENCE, process.kill)
        late.start()
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            while line and not line.startswith("answered "):  # what the engine prints
                line = process.stdout.readline()
            seconds = time.perf_counter() - begin
            if line:
                parts = tuple(float(part) for part in line.split()[1:])
                return Start(seconds, parts, *_memory(process.pid))
        finally:
            late.cancel()
            process.kill()
            process.communicate()
        noise.seek(0)
        said = last_line(Exception(noise.read().decode(errors="replace")))
    raise BenchError(
        f"a new process with {kind} ended, or was ended after {_PATIENCE:.0f} s, without an answer "
        f"({said}): leave it out of --peers"
    )


def _memory(pid: int) -> tuple[int | None, int, int]:
    """Return the bytes that it has written to, that no other process has, and that it has mapped.

    Pages of a mapped file that are not written to are the same for all processes over the file,
    and count as its own while there is only one.
    """
    import psutil

    process = psutil.Process(pid)
    told = process.memory_full_info()
    if sys.platform != "linux":
        return None, told.uss, told.rss
    maps = process.memory_maps(grouped=True)
    return sum(each.private_dirty for each in maps), told.uss, told.rss


def installed(kind: str) -> int | None:
    """Return the bytes of an engine's packages on the disk, or None if one lists no files."""
    if kind != OURS:
        return _total(_size(package) for package in _with_dependencies(kind.split("-")[0]))
    folders = [Path(__file__).parents[1]]
    if folders[0] not in shipped().parents:  # in a checkout the logs lie beside the package
        folders.append(shipped())
    own = sum(f.stat().st_size for at in folders for f in at.rglob("*") if f.is_file())
    runtime = runtime_library.installed()
    return _total(
        [
            own,
            runtime.stat().st_size if runtime else 0,
            *(_size(package) for package in _with_dependencies("apache-tvm-ffi")),
        ]
    )


def _total(sizes: Iterable[int | None]) -> int | None:
    listed = list(sizes)
    return None if None in listed else sum(size or 0 for size in listed)


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


def _size(package: str) -> int | None:
    files = importlib.metadata.files(package)
    if files is None:
        return None
    located = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in located if path.is_file())
