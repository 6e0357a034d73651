"""Paired timing: candidates take turns, and only ratios within a round are compared.

A round gives every candidate one turn of a few calls; a turn counts as the median of its calls.
The order of turns changes from round to round, so what slows the machine down for longer than a
round changes no ratio, and nobody gains by following on somebody else.

`take_rounds`, `log_ratios`, `interval` and `standard_error` serve every comparison of this package:
the tuner's, here in `time_pairs`, and the benchmark's, in `ferplus_tvm.bench.timing`.  They stand
with the tuner because the benchmark may import from it, and not the other way round.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_GAIN = 0.005
"""A gain below this is not worth a change, however sure it is."""

_CONFIDENCE = 95.0
_RESAMPLES = 2000
_FEW_PAIRS = 20
# The standard error of a median of normal values, from their median absolute deviation.
_ERROR_OF_MEDIAN = 1.2533 * 1.4826

_CALLS = 3  # of a turn
_TICK = 1e-9  # seconds, below which no clock tells anything
_LONG = 20e-3  # seconds; one call that takes longer makes a turn
_FEWEST_ROUNDS = 4  # over all placements of the arrays
_MOST_ROUNDS = 200
_PATIENCE = 10.0  # seconds for the fewest rounds; on a slow machine fewer candidates take part
_LEAST_CHOICE = 3  # candidates, of which some may be left out
_FEW_PLACEMENTS = 3  # times the error of their mean, as Student's distribution has it for four


def turn_orders(candidates: int) -> Iterator[list[int]]:
    """Give an order of turns for each round, without end.

    Rounds come in pairs of an order and its reverse, so that after an even number of them each
    candidate was as often before as behind every other.  The order is rotated from pair to pair.
    """
    for pair in itertools.count():
        shift = pair % candidates
        order = [*range(shift, candidates), *range(shift)]
        yield order
        yield order[::-1]


@dataclass(frozen=True)
class Rounds:
    """The calls of candidates that took turns.

    Attributes
    ----------
    orders
        For each round, the candidates in the order of their turns.
    calls
        For each round and candidate, the seconds of the calls of its turn.
    """

    orders: list[list[int]]
    calls: list[list[Floats]]

    @property
    def times(self) -> Floats:
        """The median seconds of each turn, (rounds, candidates)."""
        return np.array([[float(np.median(turn)) for turn in turns] for turns in self.calls])


def take_rounds(
    candidates: int,
    take_turns: Callable[[list[int]], Sequence[Sequence[float] | Floats]],
    seconds: float,
    fewest: int,
    most: float = math.inf,
) -> Rounds:
    """Take an even number of rounds until a time is over.

    Parameters
    ----------
    candidates
        How many there are.
    take_turns
        Gives candidates a turn each, in the order of the numbers that it is called with; returns
        the seconds of each turn's calls, in that order.
    seconds
        The time after which no other pair of rounds begins.
    fewest, most
        Bounds on the number of rounds, which hold whatever the time is.
    """
    rounds = Rounds([], [])
    end = time.perf_counter() + seconds
    for order in turn_orders(candidates):
        done = len(rounds.orders)
        over = time.perf_counter() >= end or done >= most
        if done >= fewest and done % 2 == 0 and over:
            break
        taken = dict(zip(order, take_turns(order), strict=True))
        rounds.orders.append(order)
        rounds.calls.append([np.asarray(taken[at], np.float64) for at in range(candidates)])
    return rounds


def log_ratios(times: Floats, baseline: int = 0) -> Floats:
    """Return the logarithm of each time's ratio to the baseline's of the same round.

    ``times`` are those of `Rounds.times`, ``baseline`` is a column of them.
    """
    logs: Floats = np.log(times)
    return logs - logs[:, baseline : baseline + 1]


def interval(logs: Floats) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median of log ratios.

    It is the bootstrap's over the rounds (Efron's percentiles).  With fewer than 20 rounds, for
    which that is too narrow, it is the whole range: of six rounds it holds the true median in 97 %
    of all cases.
    """
    if len(logs) < _FEW_PAIRS:
        return float(logs.min()), float(logs.max())
    random = np.random.default_rng(0)
    medians = np.median(random.choice(logs, (_RESAMPLES, len(logs))), axis=1)
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(medians, [tail, 100 - tail])
    return float(low), float(high)


def standard_error(logs: Floats) -> float:
    """Return the standard error of the median of log ratios, which outliers do not widen."""
    deviation = float(np.median(np.abs(logs - np.median(logs))))
    return _ERROR_OF_MEDIAN * deviation / math.sqrt(len(logs))


class Turns(Protocol):
    """Where candidates take turns: see `ferplus_tvm.tuning.device.Device`."""

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        """Return the seconds of ``repeat`` calls for each turn."""
        ...

    def move(self) -> None:
        """Have the candidates' arrays lie elsewhere in memory."""


@dataclass(frozen=True)
class PairedResult:
    """How a candidate compares with the baseline.

    Attributes
    ----------
    ratios
        For each number of threads, the median log ratio of its time to the baseline's; below 0
        where it is faster.
    noise
        For each number of threads, the size that a log ratio has to exceed to mean anything: the
        largest of twice its standard error over rounds, three times its standard error over
        placements of the arrays, the log ratio of the A/A control, and half a per cent.
    seconds
        For each number of threads, the median time of its turns.
    """

    ratios: tuple[float, ...]
    noise: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The mean log ratio; all numbers of threads count the same, as one library serves all."""
        return statistics.fmean(self.ratios)

    @property
    def wins(self) -> bool:
        """Whether it is faster by more than the noise, and with no number of threads slower."""
        return self.ratio < -statistics.fmean(self.noise) and self.not_slower

    @property
    def not_slower(self) -> bool:
        """Whether it is not slower by more than the noise with any number of threads."""
        return all(ratio <= noise for ratio, noise in zip(self.ratios, self.noise, strict=True))


def time_pairs(
    device: Turns,
    candidates: Sequence[int],
    threads: Sequence[int],
    seconds: float,
    moves: int = 0,
) -> list[PairedResult]:
    """Compare candidates with the first of them, the baseline.

    The baseline takes part twice.  Its second column is an A/A control: what that seems to gain or
    lose is noise.  So is what changes with the arrays' placement in memory.

    Parameters
    ----------
    device
        Where the candidates take turns.
    candidates
        The numbers that the device knows them by.
    threads
        The numbers of threads to measure with.
    seconds
        The time for all rounds, shared evenly by the numbers of threads and the placements.
    moves
        How often the arrays are moved to another placement in memory.

    Returns
    -------
    list of PairedResult
        One for each candidate, in order.  Where a machine is so slow that a few rounds of all would
        take tens of seconds, only those take part that a first call of each shows to be the
        fastest; the others have the ratio of that call, with endless noise.
    """
    placements = max(1, moves)
    fewest = max(2, math.ceil(_FEWEST_ROUNDS / placements))
    results: dict[int, PairedResult] = {}
    chosen = list(range(len(candidates)))
    if len(candidates) > _LEAST_CHOICE:
        called = {count: device.turns(candidates, count, 1) for count in threads}
        seen = np.array([[max(turn[0], _TICK) for turn in called[count]] for count in threads])
        slowest = float(seen.sum(axis=0).max())
        fit = int(_PATIENCE / (placements * fewest) / slowest) - 1  # less the A/A control
        by_speed = 1 + np.argsort(np.log(seen[:, 1:]).sum(axis=0))
        chosen = [0, *sorted(int(at) for at in by_speed[: max(1, fit - 1)])]
        results = {at: _called_once(seen[:, at] / seen[:, 0], seen[:, at]) for at in by_speed}
    series = [
        candidates[chosen[0]],
        *(candidates[at] for at in chosen),
    ]  # A/A control, baseline, ...
    share = seconds / len(threads) / placements
    times: list[list[Floats]] = [[] for _ in threads]
    for _ in range(placements):
        if moves:
            device.move()
        for at, count in enumerate(threads):
            times[at].append(_time_rounds(device, series, count, share, fewest))
    results |= {at: _result(times, column) for column, at in enumerate(chosen, start=1)}
    return [results[at] for at in range(len(candidates))]


def _called_once(ratios: Floats, seconds: Floats) -> PairedResult:
    """Return the result of a candidate that was called once."""
    logs = tuple(float(ratio) for ratio in np.log(ratios))
    return PairedResult(logs, (math.inf,) * len(logs), tuple(float(each) for each in seconds))


def _result(times: list[list[Floats]], column: int) -> PairedResult:
    """Return the result of a column of times, given by number of threads and placement."""
    ratios, noise, medians = [], [], []
    for placements in times:
        logs = [log_ratios(each, baseline=1) for each in placements]
        control, own = (np.concatenate(logs)[:, at] for at in (0, column))
        by_placement = [float(np.median(each[:, column])) for each in logs]
        apart = statistics.stdev(by_placement) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
        errors = (2 * standard_error(own), _FEW_PLACEMENTS * apart)
        ratios.append(float(np.median(own)))
        noise.append(max(LEAST_GAIN, abs(float(np.median(control))), *errors))
        medians.append(float(np.median(np.concatenate(placements)[:, column])))
    return PairedResult(tuple(ratios), tuple(noise), tuple(medians))


def _time_rounds(
    device: Turns, series: Sequence[int], threads: int, seconds: float, fewest: int
) -> Floats:
    """Return the time of each round's turns, (rounds, candidates)."""
    first = device.turns(series, threads, 1)  # after a change of threads; not counted
    repeat = 1 if max(turn[0] for turn in first) > _LONG else _CALLS

    def take_turns(order: list[int]) -> list[list[float]]:
        return device.turns([series[at] for at in order], threads, repeat)

    return take_rounds(len(series), take_turns, seconds, fewest, _MOST_ROUNDS).times
