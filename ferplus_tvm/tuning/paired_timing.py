"""Candidates measured in turns, and what the clock's noise lets one say of them.

A round gives every contestant one turn, in an order that changes; a turn is the median of a few
calls.  What counts is the ratio to the incumbent of the same round, so that what slows all of a
round down does no harm.  The incumbent takes part twice, as itself and as its twin: what the twin
seems to gain is noise.  So is what changes with where the arrays happen to lie in memory, where a
comparison moves them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LEAST_GAIN = 0.005
"""What is not worth a change, however sure it is."""

_CALLS = 3  # of a turn
_TICK = 1e-9  # seconds, below which no clock tells anything
_LONG = 20e-3  # seconds of a call, beyond which one makes a turn
_FEWEST_ROUNDS = 4  # all moves together
_MOST_ROUNDS = 200
_PATIENCE = 10.0  # seconds for the fewest rounds; on a slow machine fewer take part in them
_LEAST_CHOICE = 3  # contestants, of which some may be left out
_FEW_PLACES = 3  # times the error of their mean, as Student's distribution has it for four
# The standard error of a median of normal values, from their median absolute deviation.
_ERROR_OF_MEDIAN = 1.2533 * 1.4826


class Turns(Protocol):
    """What takes turns: see `ferplus_tvm.tuning.device.Device`."""

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        """Return the seconds of ``repeat`` calls for each turn."""
        ...

    def move(self) -> None:
        """Have the candidates' arrays lie elsewhere in memory."""


@dataclass(frozen=True)
class PairedResult:
    """A contestant beside the incumbent; logarithms of time ratios, below 0 where it is faster.

    ratios
        for each number of threads, the median.
    noise
        for each number of threads, what the ratio has to exceed to mean anything: twice its
        standard error from round to round, three times that from place to place, what the
        incumbent's twin seems to gain or lose, or half a per cent.
    seconds
        for each number of threads, the median of its turns.
    """

    ratios: tuple[float, ...]
    noise: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Over all numbers of threads, which count the same: one library serves them all."""
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
    place: Turns,
    contestants: Sequence[int],
    threads: Sequence[int],
    seconds: float,
    moves: int = 0,
) -> list[PairedResult]:
    """Return how contestants stand beside the first of them, in order, within a time.

    ``contestants`` are those that the place knows by number.  Rounds go on for ``seconds``, shared
    evenly between the numbers of threads, and between ``moves`` of the arrays.  Where a machine is
    so slow that a few rounds of all would take tens of seconds, only those take part that a first
    call of each shows to be the fastest; the others stand as in that call, with endless noise.
    """
    standings: dict[int, PairedResult] = {}
    chosen = list(range(len(contestants)))
    if len(contestants) > _LEAST_CHOICE:
        called = {count: place.turns(contestants, count, 1) for count in threads}
        seen = np.array([[max(turn[0], _TICK) for turn in called[count]] for count in threads])
        fit = int(_PATIENCE / _FEWEST_ROUNDS / float(seen.sum(axis=0).max())) - 1  # less the twin
        by_speed = 1 + np.argsort(np.log(seen[:, 1:]).sum(axis=0))
        chosen = [0, *sorted(int(at) for at in by_speed[: max(1, fit - 1)])]
        standings = {at: _only_seen(seen[:, at] / seen[:, 0], seen[:, at]) for at in by_speed}
    series = [contestants[chosen[0]], *(contestants[at] for at in chosen)]  # the twin comes first
    places = max(1, moves)
    share = seconds / len(threads) / places
    fewest = math.ceil(_FEWEST_ROUNDS / places)
    times: list[list[NDArray[np.float64]]] = [[] for _ in threads]
    for _ in range(places):
        if moves:
            place.move()
        for at, count in enumerate(threads):
            times[at].append(_rounds(place, series, count, share, fewest))
    standings |= {at: _standing(times, column) for column, at in enumerate(chosen, start=1)}
    return [standings[at] for at in range(len(contestants))]


def _only_seen(ratios: NDArray[np.float64], seconds: NDArray[np.float64]) -> PairedResult:
    """Return how a contestant stands that was called once."""
    logs = tuple(float(ratio) for ratio in np.log(ratios))
    return PairedResult(logs, (math.inf,) * len(logs), tuple(float(each) for each in seconds))


def _standing(times: list[list[NDArray[np.float64]]], at: int) -> PairedResult:
    """Return how the contestant of a column stands; for each number of threads, several places."""
    ratios, noise, medians = [], [], []
    for places in times:
        logs = [np.log(each) - np.log(each[:, 1:2]) for each in places]
        ratio = np.concatenate(logs)[:, at]
        twin = np.concatenate(logs)[:, 0]
        by_place = [float(np.median(each[:, at])) for each in logs]
        apart = statistics.stdev(by_place) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
        ratios.append(float(np.median(ratio)))
        noise.append(
            max(LEAST_GAIN, abs(float(np.median(twin))), 2 * _error(ratio), _FEW_PLACES * apart)
        )
        medians.append(float(np.median(np.concatenate(places)[:, at])))
    return PairedResult(tuple(ratios), tuple(noise), tuple(medians))


def _rounds(
    place: Turns, series: Sequence[int], threads: int, seconds: float, fewest: int
) -> NDArray[np.float64]:
    """Return the time of each round's turns, (rounds, contestants)."""
    first = place.turns(series, threads, 1)  # after a change of threads; not counted
    longest = max(turn[0] for turn in first)
    repeat = 1 if longest > _LONG else _CALLS
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < fewest or (time.perf_counter() < end and len(rounds) < _MOST_ROUNDS):
        # Every contestant follows on others in turn, and every second round runs backwards.
        shift = len(rounds) % len(series)
        order = [*range(shift, len(series)), *range(shift)]
        if len(rounds) % 2:
            order.reverse()
        taken = place.turns([series[at] for at in order], threads, repeat)
        by_contestant = dict(zip(order, taken, strict=True))
        rounds.append([statistics.median(by_contestant[at]) for at in range(len(series))])
    return np.array(rounds)


def _error(values: NDArray[np.float64]) -> float:
    deviation = float(np.median(np.abs(values - np.median(values))))
    return _ERROR_OF_MEDIAN * deviation / math.sqrt(len(values))
