"""Interleaved calls: engines take turns, for one batch size and number of threads.

A turn is a few calls of one engine, of which the first ones are dropped, and then a rest until the
engine's threads sleep, so that each has the machine for itself.  Orders, rounds and ratios are
those of `ferplus_tvm.tuning.paired_timing`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.bench.timing.load import Watch
from ferplus_tvm.bench.timing.process import EngineProcess
from ferplus_tvm.bench.timing.rows import Call, EngineTime, Row
from ferplus_tvm.bench.timing.samples import paired_ratio, percentile
from ferplus_tvm.errors import BenchError
from ferplus_tvm.tuning.paired_timing import Floats, Rounds, take_rounds

_TURN = 0.1  # seconds of counted calls, as far as one call takes less
_CALLS = (3, 50)  # of a turn, at least and at most
_WAKING = 5e-3  # seconds of dropped calls, which wake the threads, the caches and a GPU's clock
_DROPPED = (2, 20)  # how many, at least and at most; one where a call is long
_LONG = 0.1  # seconds
_STEADY = 1.05  # between two turns of a warm-up
_WARM_UP = 6  # turns at most
_FEWEST_ROUNDS = 6  # whose whole range is an interval of more than 95 %
_SAME_MODEL = 1e-3  # of the largest score, beyond which two engines do not run the same model
_LOWER_PRECISION = 0.5  # the same, where one of them works at another precision than float32


def measure(
    processes: Sequence[EngineProcess],
    batch: int,
    threads: int,
    seconds: float,
    progress: Callable[[float], None],
    way: str = "scores",
    peak: float | None = None,
) -> tuple[Row, list[Call]]:
    """Measure engines, of which the first is ours.

    Parameters
    ----------
    processes
        The engines, open for the batch size and the number of threads, and begun for the way.
    batch, threads, way
        As in `Row`.
    seconds
        The time for warming up and for all rounds.
    progress
        Called with the share of the time that is over, 0..1.
    peak
        The faces per second that a GPU could do at most.

    Raises
    ------
    BenchError
        If an engine ends, or answers as another model does.
    """
    differences = [difference(processes[0], process) for process in processes]
    turns = _Turns(processes, seconds, progress)
    rounds = turns.rounds()
    labels = [process.label for process in processes]
    calls = [
        Call(way, batch, threads, number, order.index(at), labels[at], call, float(each))
        for number, (order, taken) in enumerate(zip(rounds.orders, rounds.calls, strict=True))
        for at in order
        for call, each in enumerate(taken[at])
    ]
    times = [
        _engine_time(process, rounds, at, batch, differences[at], turns.steady[at], peak)
        for at, process in enumerate(processes)
    ]
    ratios = [paired_ratio(labels[at], rounds, at) for at in range(1, len(processes))]
    row = Row(
        way,
        batch,
        threads,
        len(rounds.orders),
        tuple(times),
        tuple(ratios),
        round(turns.watch.other_cpus, 3),
        round(turns.watch.pace_change, 3),
    )
    return row, calls


def difference(ours: EngineProcess, other: EngineProcess) -> float:
    """Return how far an engine's scores are off ours, relative to the largest.

    Raises
    ------
    BenchError
        If it is too far for the same model.
    """
    apart = reference_inputs.relative_error(other.scores, ours.scores.astype(np.float64))
    exact = ours.precision == other.precision == "float32"
    most = _SAME_MODEL if exact else _LOWER_PRECISION
    if not apart <= most:
        raise BenchError(
            f"the scores of {other.name} differ from ours by {apart:.1e} of the largest one: "
            f"expected at most {most:.0e}, so that both run the same model; give the library's own "
            "with --model"
        )
    return apart


def _engine_time(
    process: EngineProcess,
    rounds: Rounds,
    at: int,
    batch: int,
    apart: float,
    steady: bool,
    peak: float | None,
) -> EngineTime:
    own = np.concatenate([calls[at] for calls in rounds.calls])
    low, high = np.percentile(rounds.times[:, at], [10, 90])
    median = float(np.median(own))
    return EngineTime(
        process.label,
        process.version,
        process.precision,
        len(own),
        float(own.min()),
        median,
        percentile(own, 90),
        percentile(own, 99),
        batch / median,
        apart,
        round(float(high / low), 3),
        steady,
        process.restless,
        None if peak is None else batch / median / peak,
    )


@dataclass
class _Turns:
    """Gives engines their turns, and watches the machine meanwhile.

    Attributes
    ----------
    processes, seconds, progress
        As in `measure`.
    watch
        The other load and the CPU's pace.
    steady
        For each engine, whether its times had become steady when its warm-up ended.
    """

    processes: Sequence[EngineProcess]
    seconds: float
    progress: Callable[[float], None]
    watch: Watch = field(default_factory=Watch)
    steady: list[bool] = field(default_factory=list)

    def rounds(self) -> Rounds:
        """Warm every engine up, and take rounds for the rest of the time."""
        start = time.perf_counter()
        sizes = []
        for process in self.processes:
            size, steady = self._warm_up(process)
            sizes.append(size)
            self.steady.append(steady)
            process.restless = 0

        def take_turns(order: list[int]) -> list[Floats]:
            taken = [self._turn(at, *sizes[at]) for at in order]
            over = (time.perf_counter() - start) / max(self.seconds, 1e-9)
            self.progress(min(1.0, over))
            return taken

        left = start + self.seconds - time.perf_counter()
        return take_rounds(len(self.processes), take_turns, left, _FEWEST_ROUNDS)

    def _turn(self, at: int, calls: int, dropped: int) -> Floats:
        self.watch.begin()
        turn = self.processes[at].turn(calls, dropped)
        self.watch.end(turn.cpu)
        if at == 0:
            self.watch.paces.append(turn.pace)
        return turn.seconds

    def _warm_up(self, process: EngineProcess) -> tuple[tuple[int, int], bool]:
        """Call an engine until its times are steady, if they become so.

        Returns a turn's counted and dropped calls, and whether they did.
        """
        steady = False
        before = math.inf
        for _ in range(_WARM_UP):
            now = float(np.median(process.turn(_CALLS[0], 1).seconds))
            steady = max(now, before) <= _STEADY * min(now, before)
            if steady:
                break
            before = now
        dropped = 1 if now > _LONG else _within(_DROPPED, _WAKING / now)
        return (_within(_CALLS, _TURN / now), dropped), steady


def _within(bounds: tuple[int, int], count: float) -> int:
    return min(max(math.ceil(count), bounds[0]), bounds[1])
