"""From the start of a process to its first answer: a new process for every sample."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferplus_tvm.bench.engines.opened import OURS, FaceShape
from ferplus_tvm.bench.timing.installed import installed_bytes
from ferplus_tvm.bench.timing.samples import Ratio, paired_ratio
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.host import child
from ferplus_tvm.host.temporary import temporary_file
from ferplus_tvm.tuning.paired_timing import take_rounds

_ASKED = "np.full((1, *face), 100, np.float32)"
_OPENVINO = """
import openvino
mark()
core = openvino.Core()
network = core.read_model(path)
network.reshape([1, *face])
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
path, threads, face = sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:]))
mark()
import numpy as np
"""
_AFTER = """
mark()
print("answered", *(after - before for before, after in zip(moments, moments[1:])), flush=True)
sys.stdin.read()
"""

_PATIENCE = 120.0  # seconds for the first answer


@dataclass(frozen=True)
class ColdStart:
    """What a first answer costs.

    Attributes
    ----------
    engine
        The engine's name.
    threads
        Its threads.
    seconds
        The median over new processes, from their start; the first of each is dropped, which fills
        the page cache.
    importing, opening, answering
        The median seconds of its parts, numpy's import being in the first; the rest is the
        interpreter's own start.
    samples
        The seconds of each process.
    private_dirty
        The bytes after the answer of pages that only this process has and has written to; a second
        process needs as many again.  None where the system does not tell them apart.
    uss
        The unique set size: bytes of all pages that no other process has just now, those of mapped
        files among them.
    rss
        The resident set size: bytes of all pages that it has mapped.
    installed
        The bytes of the packages on the disk, but for numpy and Pillow, which every engine needs;
        None where a package does not list its files.
    model
        The bytes of the library or the model file.
    """

    engine: str
    threads: int
    seconds: float
    importing: float
    opening: float
    answering: float
    samples: tuple[float, ...]
    private_dirty: int | None
    uss: int
    rss: int
    installed: int | None
    model: int


@dataclass(frozen=True)
class Program:
    """What is started.

    Attributes
    ----------
    label
        The engine's name in the report.
    kind
        A key of `PROGRAMS`.
    path
        The engine's file.
    face
        The shape of a face.
    """

    label: str
    kind: str
    path: str
    face: FaceShape


@dataclass(frozen=True)
class Start:
    """One new process.

    Attributes
    ----------
    seconds
        From its start to its first answer.
    parts
        The seconds of importing, opening and answering.
    private_dirty, uss, rss
        Its memory after the answer, as in `ColdStart`.
    """

    seconds: float
    parts: tuple[float, ...]
    private_dirty: int | None
    uss: int
    rss: int


def measure(
    programs: Sequence[Program], threads: int, runs: int, progress: Callable[[float], None]
) -> tuple[list[ColdStart], list[Ratio]]:
    """Start engines in turn, ours first, an even number of times after a first one.

    Raises
    ------
    BenchError
        If one does not answer.
    """
    taken: list[list[Start]] = [[] for _ in programs]
    for program in programs:
        start(program, threads)

    def take_turns(order: list[int]) -> list[list[float]]:
        for at in order:
            taken[at].append(start(programs[at], threads))
        progress(len(taken[0]) / runs)
        return [[taken[at][-1].seconds] for at in order]

    rounds = take_rounds(len(programs), take_turns, 0.0, runs)
    found = [_summary(*each, threads) for each in zip(programs, taken, strict=True)]
    return found, [paired_ratio(found[at].engine, rounds, at) for at in range(1, len(found))]


def _summary(program: Program, starts: Sequence[Start], threads: int) -> ColdStart:
    medians = np.median([each.parts for each in starts], axis=0)
    importing, opening, answering = (float(part) for part in medians)
    seconds = tuple(each.seconds for each in starts)
    dirty = [each.private_dirty for each in starts if each.private_dirty is not None]
    return ColdStart(
        program.label,
        threads,
        float(np.median(seconds)),
        importing,
        opening,
        answering,
        seconds,
        int(np.median(dirty)) if dirty else None,
        int(np.median([each.uss for each in starts])),
        int(np.median([each.rss for each in starts])),
        installed_bytes(program.kind),
        Path(program.path).stat().st_size,
    )


def start(program: Program, threads: int) -> Start:
    """Start a process that gives one answer.

    Raises
    ------
    BenchError
        If it gives none.
    """
    with temporary_file() as noise:
        begin = time.perf_counter()
        process = subprocess.Popen(
            child.python(
                "-c",
                _BEFORE + PROGRAMS[program.kind] + _AFTER,
                program.path,
                *map(str, (threads, *program.face)),
            ),
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
        f"a new process with {program.kind} ended, or was ended after {_PATIENCE:.0f} s, without "
        f"an answer ({said}): leave it out of --peers"
    )


def _memory(pid: int) -> tuple[int | None, int, int]:
    """Return the bytes of its private dirty pages, its USS and its RSS.

    Pages of a mapped file that are not written to are the same for all processes over the file,
    and belong to the USS while there is only one.
    """
    import psutil

    process = psutil.Process(pid)
    told = process.memory_full_info()
    if sys.platform != "linux":
        return None, told.uss, told.rss
    maps = process.memory_maps(grouped=True)
    return sum(each.private_dirty for each in maps), told.uss, told.rss
