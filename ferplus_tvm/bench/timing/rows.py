"""The figures of interleaved calls: a row for each batch size and number of threads."""

from __future__ import annotations

from dataclasses import dataclass

from ferplus_tvm.bench.timing.samples import Ratio


@dataclass(frozen=True)
class EngineTime:
    """The calls of one engine.  A time is in seconds, of a call, which is a whole batch.

    Attributes
    ----------
    engine
        The engine's name, with its precision where that is not float32.
    version, precision
        As the engine says itself.
    calls
        How many were counted.
    minimum
        The fastest of them.
    p50, p90, p99
        Percentiles; None where there were too few calls to state one.
    faces_per_second
        By the median.
    difference
        The difference of its scores from ours, relative to the largest score.
    turn_spread
        The 90th over the 10th percentile of its turns' medians: 1 where all turns are alike.
    steady
        Whether its times had become steady before it was measured.
    restless
        The turns after which its threads went on working.
    share_of_peak
        On a GPU, the floating point operations of the layers, computed directly, over what the
        card could do at its highest clock; None on a CPU.  Winograd's algorithm needs fewer, so
        the share may be above 1.
    """

    engine: str
    version: str
    precision: str
    calls: int
    minimum: float
    p50: float
    p90: float | None
    p99: float | None
    faces_per_second: float
    difference: float
    turn_spread: float
    steady: bool
    restless: int
    share_of_peak: float | None = None


@dataclass(frozen=True)
class Row:
    """What was measured for one way, batch size and number of threads.

    Attributes
    ----------
    way
        ``scores``: from faces to scores, both on the host.  ``on_gpu``: both on the GPU.
        ``jpeg``: from a JPEG's bytes to a label.
    batch
        The faces of a call.
    threads
        The threads of each engine; 0 on a GPU.
    rounds
        The turns of each engine.
    engines
        The engines, ours first.
    ratios
        One for each peer.
    other_cpus
        The CPUs that other processes kept busy meanwhile.
    pace_change
        The time of a fixed piece of work in slow minutes over that in fast ones.
    """

    way: str
    batch: int
    threads: int
    rounds: int
    engines: tuple[EngineTime, ...]
    ratios: tuple[Ratio, ...]
    other_cpus: float
    pace_change: float

    @property
    def where(self) -> str:
        """What was measured, in words."""
        return where(self.way, self.batch, self.threads)


@dataclass(frozen=True)
class Call:
    """One timed call: the raw sample.

    Attributes
    ----------
    way, batch, threads
        As in `Row`.
    round, position
        The round, and the place of the engine's turn in it; both from 0.
    engine
        The engine's name.
    call
        The number of the call in its turn, from 0.
    seconds
        The time of the call.
    """

    way: str
    batch: int
    threads: int
    round: int
    position: int
    engine: str
    call: int
    seconds: float


def where(way: str, batch: int, threads: int) -> str:
    """Return what was measured, in words: ``batch 8, 2 threads``."""
    if threads:
        place = f"{threads} thread{'s' if threads > 1 else ''}"
    else:
        place = "GPU memory" if way == "on_gpu" else "host memory"
    return f"{'JPEG to label, ' if way == 'jpeg' else ''}batch {batch}, {place}"
