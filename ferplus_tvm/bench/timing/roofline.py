"""The machine's roofline, measured: multiply-adds, and bytes from each level of memory.

Multiply-adds are fused ones on registers, on one core and on several.  Bytes are read (and added
up), or copied, from a buffer of each thread's own that fits a level of the caches or none; a copied
byte counts once as read and once as written, as STREAM counts (McCalpin, 1995).
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact.layout import ALIGNMENT
from ferplus_tvm.runtime.session_cpu import aligned

_STEPS = 200_000  # of a multiply-add per accumulator
_MOVED = 64 << 20  # bytes of each thread in a call, by as many passes as it takes
_LASTING = 0.5  # seconds of calls: threads may share a core for the first tenths of a second
_MEMORY = 128 << 20  # bytes that no usual cache holds
_MOST = 1 << 30


@dataclass(frozen=True)
class Level:
    """A level of memory.

    Attributes
    ----------
    name
        ``L1``, ``L2``, ... or ``memory``.
    bytes
        The size of a cache; 0 for the memory itself.
    read, copy
        Bytes per second; a copied byte counts twice.
    """

    name: str
    bytes: int
    read: float
    copy: float


@dataclass(frozen=True)
class Roofline:
    """What this machine can do at most with a number of threads.

    Attributes
    ----------
    threads
        How many.
    one_core, all_threads
        Float32 operations per second, a multiply-add being two.
    levels
        From the fastest to the memory.
    """

    threads: int
    one_core: float
    all_threads: float
    levels: tuple[Level, ...]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Roofline:
        """Read what `measure` returned."""
        levels = tuple(Level(**level) for level in told["levels"])
        return cls(told["threads"], told["one_core"], told["all_threads"], levels)

    def reading(self, nbytes: int) -> float:
        """Return the bytes per second at which data of so many bytes, used in turn, are read."""
        fitting = [level.read for level in self.levels if level.bytes > 1.5 * nbytes]
        return fitting[0] if fitting else self.levels[-1].read


def measure(threads: int) -> dict[str, Any]:
    """Return `Roofline` as plain values; on the thread whose pool has so many threads."""
    sizes = caches()
    sharing = min(threads, _sharing_the_last())
    last = list(sizes)[-1]
    levels = []
    for name, nbytes in sizes.items():
        own = nbytes // 4 // (sharing if name == last else 1)
        levels.append(Level(name, nbytes, *_bandwidth(threads, own)))
    # More than the caches hold: every thread's share of its own last one, four times.
    memory = min(max(_MEMORY, 4 * sizes[last]) // sharing, _MOST // threads)
    levels.append(Level("memory", 0, *_bandwidth(threads, memory)))
    one, several = _peak(1), _peak(threads)
    return asdict(Roofline(threads, one, several, tuple(levels)))


def caches() -> dict[str, int]:
    """Return the bytes of the data caches, where Linux tells them; otherwise what is usual."""
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = (
                (cache / name).read_text().strip() for name in ("type", "level", "size")
            )
            if kind != "Instruction":
                found[f"L{int(level)}"] = int(size.removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return dict(sorted((found or {"L1": 32 << 10, "L2": 512 << 10}).items()))


def _sharing_the_last() -> int:
    """Return how many CPUs share the last cache, where Linux tells it; otherwise all."""
    shared = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/shared_cpu_map"))
    try:
        return shared[-1].read_text().replace(",", "").translate(_BITS).count("1")
    except (OSError, IndexError):
        return os.cpu_count() or 1


_BITS = {ord(f"{digit:x}"): f"{digit:04b}" for digit in range(16)}


def _peak(threads: int) -> float:
    from ferplus_tvm import targets
    from ferplus_tvm.kernels.cpu import tensorir

    unit = _unit()
    # Enough accumulators to hide the latency of a multiply-add, all of them different sums, and
    # with what they multiply few enough to stay in registers.
    rows, vectors = (4, 5) if targets.resolve("native").vector_unit.registers >= 32 else (3, 3)
    size = rows * vectors * unit.lanes
    with tensorir.function() as builder:
        x = tensorir.argument("x", (vectors * unit.lanes,))
        y = tensorir.argument("y", (threads * size,))
        with tensorir.parallel(threads) as task:
            tile = tensorir.RegisterTile(unit, rows, vectors)
            with tensorir.serial(_STEPS):
                tile.add(lambda row: x[row], lambda vector: unit.load(x, vector * unit.lanes))
            for row in range(rows):
                for vector in range(vectors):
                    at = task * size + (row * vectors + vector) * unit.lanes
                    unit.store(y, tile.result(row, vector), at)
    seconds = _fastest(builder.get(), (vectors * unit.lanes,), (threads * size,))
    return float(2.0 * _STEPS * size * threads / seconds)


def _bandwidth(threads: int, working: int) -> tuple[float, float]:
    """Return the bytes a second that are read and copied, from ``working`` bytes a thread."""
    from ferplus_tvm.kernels.cpu import tensorir

    unit, unrolled = _unit(), 8
    step = unrolled * unit.lanes
    steps = max(1, working // 8 // step)  # half of the working set is read, half is written
    size = steps * step
    passes = max(1, _MOVED // (4 * size))

    with tensorir.function() as builder:
        x = tensorir.argument("x", (threads * size,))
        y = tensorir.argument("y", (threads * step,))
        with tensorir.parallel(threads) as task:
            tile = tensorir.RegisterTile(unit, 1, unrolled)
            with tensorir.serial(passes), tensorir.serial(steps) as index:
                at = tensorir.value(task * size + index * step)
                tile.add(lambda row: 1.0, lambda vector: unit.load(x, at + vector * unit.lanes))
            for vector in range(unrolled):
                unit.store(y, tile.result(0, vector), task * step + vector * unit.lanes)
    moved = 4.0 * threads * size * passes
    read = moved / _fastest(builder.get(), (threads * size,), (threads * step,))

    with tensorir.function() as builder:
        x = tensorir.argument("x", (threads * size,))
        y = tensorir.argument("y", (threads * size,))
        loops = (tensorir.serial(passes), tensorir.serial(steps))
        with tensorir.parallel(threads) as task, loops[0] as turn, loops[1] as index:
            # Each pass begins elsewhere: LLVM would see that all do the same, and copy once.
            at = tensorir.value(task * size + (index + turn) % steps * step)
            for vector in range(unrolled):
                place = at + vector * unit.lanes
                unit.store(y, unit.load(x, place), place)
    copy = 2 * moved / _fastest(builder.get(), (threads * size,), (threads * size,))
    return read, copy


def _unit() -> Any:
    from ferplus_tvm import targets
    from ferplus_tvm.kernels.cpu import tensorir

    return tensorir.Vectors(targets.resolve("native").vector_unit.lanes)


def _fastest(function: Any, *shapes: tuple[int, ...]) -> float:
    """Return the shortest time of a kernel's calls: what the machine can do, undisturbed."""
    import tvm
    import tvm_ffi

    from ferplus_tvm import targets
    from ferplus_tvm.kernels.cpu import tensorir

    with tensorir.pass_context():
        kernel = tvm.compile(function, target=targets.resolve("native").tvm_target())["main"]
    arrays = [aligned(shape) for shape in shapes]
    for array in arrays:
        array.fill(1)  # whose memory is there from then on
    tensors = [tvm_ffi.from_dlpack(array, require_alignment=ALIGNMENT) for array in arrays]
    best = float("inf")
    end = time.perf_counter() + _LASTING
    while time.perf_counter() < end:
        start = time.perf_counter()
        kernel(*tensors)
        best = min(best, time.perf_counter() - start)
    return best
