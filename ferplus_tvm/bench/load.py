"""What else happens on the machine while something is measured."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field

from ferplus_tvm import cpu

_LOOPS = 10_000  # half a millisecond of plain Python, best of
_TIMES = 5


@dataclass
class Watch:
    """Notes other processes' CPU time during turns, and how fast the CPU is between them.

    others
        CPUs that were busy with something else, in each turn, on those that this process may use.
    paces
        seconds of a fixed piece of work, once a round.
    """

    others: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Note where a turn begins."""
        self._start, self._busy, self._own = time.perf_counter(), _busy(), time.process_time()

    def end(self, engine: float) -> None:
        """Note where it ends; ``engine`` is the CPU time of the engine's process in it."""
        own = time.process_time() - self._own
        wall = time.perf_counter() - self._start
        self.others.append(max(0.0, (_busy() - self._busy - engine - own) / wall))

    def pace(self) -> None:
        """Do the fixed piece of work."""
        best = float("inf")
        for _ in range(_TIMES):
            start = time.perf_counter()
            total = 0
            for number in range(_LOOPS):
                total += number
            best = min(best, time.perf_counter() - start)
        self.paces.append(best)

    @property
    def other_cpus(self) -> float:
        """The mean over all turns; the system counts in hundredths of a second."""
        return statistics.fmean(self.others) if self.others else 0.0

    @property
    def pace_change(self) -> float:
        """How much longer the fixed work took in slow minutes than in fast ones, as a ratio."""
        if len(self.paces) < 5:
            return 1.0
        deciles = statistics.quantiles(self.paces, n=10)
        return deciles[-1] / deciles[0]


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
    allowed = [number for number in cpu.allowed() if number < len(every)]
    kinds = ("user", "nice", "system", "irq", "softirq", "steal", "interrupt", "dpc")
    return sum(float(getattr(every[number], kind, 0.0)) for number in allowed for kind in kinds)


def average() -> float | None:
    """Return the system's load average of the last minute, where it has one."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
