"""What a number of timed calls lets one say: percentiles, and ratios with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ferplus_tvm.tuning.paired_timing import Floats, Rounds, interval, log_ratios

_SURE = 0.95
_LOADGEN_SURE = 0.99


def calls_for(percentile: float) -> int:
    """Return how many calls a percentile needs to be stated.

    With fewer, the slowest of them lies below the true percentile more often than one time in
    twenty (the distribution-free bound by an order statistic: 1 - p^n of at least 95 %).
    """
    return math.ceil(math.log(1 - _SURE) / math.log(percentile / 100))


def percentile(values: Sequence[float] | Floats, wanted: float) -> float | None:
    """Return a percentile in 0..100, or None where there are too few values to state it."""
    if len(values) < calls_for(wanted):
        return None
    return float(np.percentile(values, wanted))


@dataclass(frozen=True)
class Ratio:
    """A peer's time over ours.

    Attributes
    ----------
    peer
        The peer's name.
    ratio
        The median over rounds; above 1 where ours is faster.
    low, high
        Its 95 % confidence interval, `ferplus_tvm.tuning.paired_timing.interval`.
    ours_first, peer_first
        The median of the rounds in which the one or the other was measured first; None where there
        was no such round.
    pairs
        The number of rounds.
    """

    peer: str
    ratio: float
    low: float
    high: float
    ours_first: float | None
    peer_first: float | None
    pairs: int


def paired_ratio(peer: str, rounds: Rounds, at: int) -> Ratio:
    """Return the ratio of a peer, which is the candidate ``at`` of rounds in which ours is 0."""
    logs = log_ratios(rounds.times)[:, at]
    first = np.array([order.index(at) < order.index(0) for order in rounds.orders])
    low, high = interval(logs)
    return Ratio(
        peer,
        math.exp(float(np.median(logs))),
        math.exp(low),
        math.exp(high),
        _median(logs[~first]),
        _median(logs[first]),
        len(logs),
    )


def _median(logs: Floats) -> float | None:
    return math.exp(float(np.median(logs))) if len(logs) else None


def early_stopping_estimate(latencies: Sequence[float], wanted: float) -> float | None:
    """Return MLPerf's early-stopping estimate of a percentile, or None where calls are too few.

    With t the most calls that could lie beyond the true percentile with a probability of at most
    1 %, the t-th slowest call; t has to be 1 at least, so that the 90th percentile needs 64 calls
    (MLPerf Inference rules, appendix on early stopping, as LoadGen computes it).
    """
    beyond = 1 - wanted / 100
    count = len(latencies)
    odds = math.log(beyond) - math.log1p(-beyond)
    term = count * math.log1p(-beyond)  # of the binomial distribution, as a logarithm
    below = 0.0  # the probability that fewer than `left_out` of the calls lie beyond
    left_out = 0
    while left_out < count and below + math.exp(term) <= 1 - _LOADGEN_SURE:
        below += math.exp(term)
        term += odds + math.log(count - left_out) - math.log(left_out + 1)
        left_out += 1
    slowest = left_out - 1  # so many or fewer beyond is what is unlikely enough
    return float(np.sort(latencies)[count - slowest]) if slowest >= 1 else None
