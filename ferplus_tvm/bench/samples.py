"""What a number of timed calls lets one say: percentiles, paired ratios, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SURE = 0.95
_RESAMPLES = 2000
_FEW_PAIRS = 20
_LOADGEN_SURE = 0.99


def calls_for(percentile: float) -> int:
    """Return how many calls a percentile needs to be stated.

    With fewer, the slowest of them lies below the true percentile more often than one time in
    twenty (the distribution-free bound by an order statistic: 1 - p^n of at least 95 %).
    """
    return math.ceil(math.log(1 - _SURE) / math.log(percentile / 100))


def percentile(values: Sequence[float], wanted: float) -> float | None:
    """Return a percentile in 0..100, or None where there are too few values to state it."""
    if len(values) < calls_for(wanted):
        return None
    return float(np.percentile(values, wanted))


@dataclass(frozen=True)
class Ratio:
    """A peer's time over ours: the median of paired turns, with its 95 % confidence interval.

    ours_first, peer_first
        the median of the pairs in which the one or the other was measured first; None where there
        was no such pair.
    pairs
        how many.
    """

    peer: str
    ratio: float
    low: float
    high: float
    ours_first: float | None
    peer_first: float | None
    pairs: int


def paired_ratio(
    peer: str, theirs: Sequence[float], ours: Sequence[float], peer_first: Sequence[bool]
) -> Ratio:
    """Return the ratio of paired times.

    The interval is the bootstrap's over the pairs (Efron, percentiles); with fewer than 20 pairs,
    for which that is too narrow, it is their whole range, which six pairs hold the true median in
    97 % of all cases by.
    """
    logs = np.log(np.asarray(theirs)) - np.log(np.asarray(ours))
    first = np.asarray(peer_first)
    low, high = float(logs.min()), float(logs.max())
    if len(logs) >= _FEW_PAIRS:
        random = np.random.default_rng(0)
        medians = [np.median(random.choice(logs, len(logs))) for _ in range(_RESAMPLES)]
        low, high = (float(end) for end in np.percentile(medians, [2.5, 97.5]))
    return Ratio(
        peer,
        math.exp(float(np.median(logs))),
        math.exp(low),
        math.exp(high),
        _median(logs[~first]),
        _median(logs[first]),
        len(logs),
    )


def _median(logs: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
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
