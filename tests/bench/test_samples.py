"""What is said of timed calls whose distribution is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from ferplus_tvm.bench.timing.samples import (
    Ratio,
    calls_for,
    early_stopping_estimate,
    paired_ratio,
    percentile,
)
from ferplus_tvm.tuning.paired_timing import Rounds


def test_a_percentile_is_stated_only_with_enough_calls() -> None:
    values = list(np.random.default_rng(0).random(400))
    for wanted, needed in ((50, 5), (90, 29), (99, 299)):
        assert calls_for(wanted) == needed
        assert percentile(values[: needed - 1], wanted) is None
        stated = percentile(values[:needed], wanted)
        assert stated == pytest.approx(np.quantile(values[:needed], wanted / 100))


def test_with_that_many_calls_the_slowest_is_hardly_ever_below_the_true_percentile() -> None:
    random = np.random.default_rng(1)
    slowest = random.random((4000, calls_for(99))).max(axis=1)
    assert np.mean(slowest < 0.99) == pytest.approx(0.05, abs=0.015)


def ratio_of(theirs: Sequence[float], ours: Sequence[float], peer_first: Sequence[bool]) -> Ratio:
    """The ratio of turns with one call each."""
    orders = [[1, 0] if first else [0, 1] for first in peer_first]
    calls = [[np.array([own]), np.array([other])] for own, other in zip(ours, theirs, strict=True)]
    return paired_ratio("other", Rounds(orders, calls), 1)


def test_a_ratio_is_of_the_pairs_and_not_of_the_two_medians() -> None:
    """The machine is three times slower in every second round, for both."""
    slow = np.where(np.arange(40) % 2, 3.0, 1.0)
    ratio = ratio_of(list(2.5 * slow), list(slow), [False, True] * 20)
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((2.5, 2.5, 2.5))
    assert ratio.ours_first == pytest.approx(2.5) and ratio.peer_first == pytest.approx(2.5)
    assert ratio.pairs == 40


def test_nineteen_of_twenty_intervals_hold_the_true_ratio() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(80):
        theirs, ours = np.exp(0.1 * random.standard_normal((2, 30)))
        ratio = ratio_of(list(1.3 * theirs), list(ours), [False] * 30)
        assert ratio.low <= ratio.ratio <= ratio.high and ratio.peer_first is None
        held += ratio.low <= 1.3 <= ratio.high
    assert 70 <= held <= 80


def test_few_pairs_give_their_whole_range() -> None:
    theirs = [2.0, 2.1, 1.9, 2.4, 1.7, 2.0]
    ratio = ratio_of(theirs, [1.0] * 6, [False, True] * 3)
    assert (ratio.low, ratio.high) == pytest.approx((1.7, 2.4))


def test_order_that_matters_shows() -> None:
    first = [True, False] * 10
    theirs = [2.0 if each else 3.0 for each in first]
    ratio = ratio_of(theirs, [1.0] * 20, first)
    assert (ratio.peer_first, ratio.ours_first) == pytest.approx((2.0, 3.0))


def beyond(count: int, most: int) -> float:
    """The probability that at most so many of all calls are among the slowest tenth."""
    return sum(math.comb(count, k) * 0.1**k * 0.9 ** (count - k) for k in range(most + 1))


@pytest.mark.parametrize("count", [64, 100, 257, 1000])
def test_early_stopping_takes_the_order_statistic_of_the_rules(count: int) -> None:
    left_out = next(most for most in range(count) if beyond(count, most + 1) > 0.01)
    latencies = list(np.random.default_rng(3).permutation(np.arange(count) + 1.0))
    assert early_stopping_estimate(latencies, 90) == count - left_out + 1  # the t-th slowest
    assert count - left_out > 0.9 * count  # on the safe side of the sample's own percentile


def test_early_stopping_needs_64_queries() -> None:
    assert early_stopping_estimate(list(range(63)), 90) is None
    assert early_stopping_estimate(list(range(64)), 90) == 63


def test_early_stopping_comes_near_the_percentile_with_many_queries() -> None:
    values = list(np.random.default_rng(4).random(20_000))
    estimates = [early_stopping_estimate(values[:count], 90) for count in (100, 1000, 20_000)]
    gaps = [abs(each - 0.9) for each in estimates if each is not None]
    assert len(gaps) == 3 and gaps[-1] < 0.01
    assert all(later < earlier for earlier, later in pairwise(gaps))
