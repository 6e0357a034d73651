"""What else happens on the machine while something is measured."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field

from ferplus_tvm.host import cpu

_LOOPS = 10_000  # half a millisecond of plain Python, best of
_TIMES = 5


@dataclass
class Watch:
    """Notes other processes' CPU time during turns, and how fast the CPU is between them.

    Attributes
    ----------
    others
        The CPU seconds of others in all turns, on the CPUs that this process may use.
    wall
        The seconds of all turns.
    paces
        The seconds of a fixed piece of work, after each of our own turns, in the engine's process.
    """

    others: float = 0.0
    wall: float = 0.0
    paces: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Note that a turn begins."""
        self._start, self._busy, self._own = time.perf_counter(), _busy(), time.process_time()

    def end(self, engine: float) -> None:
        """Note that it ends; ``engine`` is the CPU time of the engine's process in it."""
        own = time.process_time() - self._own
        self.wall += time.perf_counter() - self._start
        self.others += _busy() - self._busy - engine - own

    @property
    def other_cpus(self) -> float:
        """The CPUs that others kept busy, over all turns."""
        return max(0.0, self.others / self.wall) if self.wall else 0.0

    @property
    def pace_change(self) -> float:
        """The time of the fixed work in slow minutes over that in fast ones."""
        deciles = statistics.quantiles(self.paces, n=10)
        return deciles[-1] / deciles[0]


def pace() -> float:
    """Return the seconds of a fixed piece of work, plain Python: how fast this CPU is now."""
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        total = 0
        for number in range(_LOOPS):
            total += number
        best = min(best, time.perf_counter() - start)
    return best


def before() -> float:
    """Return how many of the CPUs that this process may use are busy now, over half a second."""
    start, busy, own = time.perf_counter(), _busy(), time.process_time()
    time.sleep(0.5)
    own = time.process_time() - own
    return max(0.0, (_busy() - busy - own) / (time.perf_counter() - start))


def _busy() -> float:
    """Return the CPU seconds that were not idle, on the CPUs that this process may use."""
    import psutil

    every = psutil.cpu_times(percpu=True)
    allowed = cpu.allowed()
    if allowed[-1] >= len(every):  # some CPUs are switched off, and numbers are none of the list
        allowed = list(range(len(every)))
    kinds = ("user", "nice", "system", "irq", "softirq", "steal", "interrupt", "dpc")
    return sum(float(getattr(every[number], kind, 0.0)) for number in allowed for kind in kinds)


def average() -> float | None:
    """Return the system's load average of the last minute, where it has one."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
