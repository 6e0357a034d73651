"""Engines in turns: one batch size and number of threads, each engine alone on the machine.

A round gives every engine one turn: a few calls, of which the first ones are dropped, and then a
rest until its threads sleep.  The order changes from round to round, so that every engine is as
often before as behind every other.  What counts is the ratio within a round, which whatever slows
the machine down for longer than a round does not change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.bench import samples
from ferplus_tvm.bench.load import Watch
from ferplus_tvm.bench.process import EngineProcess
from ferplus_tvm.errors import BenchError

_TURN = 0.1  # seconds of counted calls, as far as one call takes less
_CALLS = (3, 20)  # of a turn, at least and at most
_DROPPED = 2  # calls that wake the threads and the caches up; one where calls take long
_LONG = 0.1  # seconds
_STEADY = 1.05  # between two turns of a warm-up
_WARM_UP = 6  # turns at most
_FEWEST_ROUNDS = 6  # whose whole range is an interval of more than 95 %
_SAME_MODEL = 1e-3  # of the largest score, beyond which two engines do not run the same model
_LOWER_PRECISION = 0.5  # the same, where one of them works at another precision than float32


@dataclass(frozen=True)
class EngineTime:
    """One engine's calls; seconds of a call, which is a whole batch.

    p50, p90, p99
        percentiles; None where there were too few calls to state one.
    faces_per_second
        by the median.
    difference
        of its scores from ours, relative to the largest score.
    turn_spread
        the 90th over the 10th percentile of its turns' medians: 1 where all turns are alike.
    steady
        whether its times had become steady before it was measured.
    restless
        the turns after which its threads went on working.
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


@dataclass(frozen=True)
class Row:
    """What was measured for one batch size and number of threads.

    way
        ``scores`` (arrays in, scores out) or ``jpeg`` (a JPEG's bytes in, a label out).
    other_cpus
        CPUs that other processes kept busy meanwhile.
    pace_change
        how much longer a fixed tensor of work took in slow minutes than in fast ones.
    """

    way: str
    batch: int
    threads: int
    rounds: int
    engines: tuple[EngineTime, ...]
    ratios: tuple[samples.Ratio, ...]
    other_cpus: float
    pace_change: float


@dataclass(frozen=True)
class Call:
    """One timed call: the raw sample."""

    way: str
    batch: int
    threads: int
    round: int
    position: int
    engine: str
    call: int
    seconds: float


@dataclass
class Rounds:
    """Takes turns until a time is over; see `measure`."""

    processes: Sequence[EngineProcess]
    watch: Watch = field(default_factory=Watch)
    turns: list[list[tuple[int, np.ndarray[tuple[int], np.dtype[np.float64]]]]] = field(
        default_factory=list
    )
    steady: list[bool] = field(default_factory=list)

    def take(self, seconds: float, progress: Callable[[float], None]) -> None:
        """Warm every engine up, and then measure for so long; report the share that is done."""
        start = time.perf_counter()
        sizes = []
        for process in self.processes:
            size, steady = self._warm_up(process)
            sizes.append(size)
            self.steady.append(steady)
            process.restless = 0
        end = max(time.perf_counter(), start + seconds)
        for order in _orders(len(self.processes)):
            done = len(self.turns)
            # An even number, so that each is as often before as behind another.
            if time.perf_counter() >= end and done >= _FEWEST_ROUNDS and done % 2 == 0:
                return
            taken = []
            for at in order:
                self.watch.begin()
                turn = self.processes[at].turn(*sizes[at])
                self.watch.end(turn.cpu)
                taken.append((at, turn.seconds))
                if at == 0:
                    self.watch.paces.append(turn.pace)
            self.turns.append(taken)
            progress(min(1.0, (time.perf_counter() - start) / max(seconds, 1e-9)))

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
        calls = min(max(math.ceil(_TURN / now), _CALLS[0]), _CALLS[1])
        return (calls, 1 if now > _LONG else _DROPPED), steady


def measure(
    processes: Sequence[EngineProcess],
    batch: int,
    threads: int,
    seconds: float,
    progress: Callable[[float], None],
    way: str = "scores",
) -> tuple[Row, list[Call]]:
    """Measure engines, of which the first is ours, for so many seconds.

    Raises
    ------
    BenchError
        If an engine ends, or answers as another model does.
    """
    differences = [difference(processes[0], process) for process in processes]
    rounds = Rounds(processes)
    rounds.take(seconds, progress)
    calls = [
        Call(way, batch, threads, at, position, processes[engine].label, call, float(each))
        for at, turns in enumerate(rounds.turns)
        for position, (engine, taken) in enumerate(turns)
        for call, each in enumerate(taken)
    ]
    by_engine = [
        [float(np.median(taken)) for turns in rounds.turns for at, taken in turns if at == engine]
        for engine in range(len(processes))
    ]
    places = [[at for at, _ in turns] for turns in rounds.turns]
    ratios = [
        samples.paired_ratio(
            processes[engine].label,
            by_engine[engine],
            by_engine[0],
            [order.index(engine) < order.index(0) for order in places],
        )
        for engine in range(1, len(processes))
    ]
    times = []
    for process, apart, turns, steady in zip(
        processes, differences, by_engine, rounds.steady, strict=True
    ):
        low, high = np.percentile(turns, [10, 90])
        own = [call.seconds for call in calls if call.engine == process.label]
        median = float(np.median(own))
        times.append(
            EngineTime(
                process.label,
                process.version,
                process.precision,
                len(own),
                min(own),
                median,
                samples.percentile(own, 90),
                samples.percentile(own, 99),
                batch / median,
                apart,
                round(float(high / low), 3),
                steady,
                process.restless,
            )
        )
    row = Row(
        way,
        batch,
        threads,
        len(rounds.turns),
        tuple(times),
        tuple(ratios),
        round(rounds.watch.other_cpus, 3),
        round(rounds.watch.pace_change, 3),
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
    most = _SAME_MODEL if other.precision == "float32" else _LOWER_PRECISION
    if not apart <= most:
        raise BenchError(
            f"the scores of {other.name} differ from ours by {apart:.1e} of the largest one: "
            f"expected at most {most:.0e}, so that both run the same model; give the library's own "
            "with --model"
        )
    return apart


def _orders(engines: int) -> Iterator[list[int]]:
    """Give an order for each round: rotated, and backwards every second time."""
    at = 0
    while True:
        shift = at // 2 % engines
        order = [*range(shift, engines), *range(shift)]
        yield order[::-1] if at % 2 else order
        at += 1
