"""What paired timing says of candidates whose times, and whose noise, are known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ferplus_tvm.tuning import paired_timing
from ferplus_tvm.tuning.paired_timing import (
    PairedResult,
    interval,
    log_ratios,
    standard_error,
    take_rounds,
    time_pairs,
    turn_orders,
)


class Simulated:
    """A device whose calls take about 1 ms, and its clock.

    Attributes
    ----------
    factors
        Of each candidate's time, for one thread and for several.
    placing
        The standard deviation of what a placement of the arrays does to a log time.
    """

    def __init__(
        self,
        factors: Sequence[tuple[float, float]],
        noise: float,
        seed: int,
        machine: Callable[[float], float] = lambda now: 1.0,
        placing: float = 0.0,
    ) -> None:
        self.factors, self.noise, self.machine, self.placing = factors, noise, machine, placing
        self.random = np.random.default_rng(seed)
        self.now = 0.0
        self.orders: list[tuple[int, ...]] = []
        self.placements = np.ones(len(factors))

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        self.orders.append(tuple(order))
        answer = []
        for at in order:
            base = (
                1e-3 * self.factors[at][threads > 1] * self.machine(self.now) * self.placements[at]
            )
            calls = base * np.exp(self.noise * self.random.standard_normal(repeat))
            self.now += float(calls.sum())
            answer.append([float(call) for call in calls])
        return answer

    def move(self) -> None:
        self.placements = np.exp(self.placing * self.random.standard_normal(len(self.factors)))


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PairedResult]:
    """Return how the last candidate compares with the first."""

    def run(device: Simulated, seconds: float = 1.0, moves: int = 0) -> PairedResult:
        monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: device.now)
        return time_pairs(device, range(len(device.factors)), (1, 2), seconds, moves)[-1]

    return run


@pytest.mark.parametrize("candidates", [1, 2, 3, 5])
def test_each_is_as_often_before_as_behind_every_other(candidates: int) -> None:
    orders = list(itertools.islice(turn_orders(candidates), 2 * candidates))
    assert all(sorted(order) == list(range(candidates)) for order in orders)
    for one, other in itertools.combinations(range(candidates), 2):
        before = sum(order.index(one) < order.index(other) for order in orders)
        assert before == candidates  # of twice as many rounds
    assert {order[0] for order in orders} == set(range(candidates))


@pytest.mark.parametrize(("fewest", "expected"), [(6, 6), (5, 6), (2, 2)])
def test_rounds_are_even_in_number_and_told_by_candidate(fewest: int, expected: int) -> None:
    rounds = take_rounds(2, lambda order: [[1.0 + at, 9.0, 1.0 + at] for at in order], 0.0, fewest)
    assert len(rounds.orders) == len(rounds.calls) == expected
    assert rounds.times.tolist() == [[1.0, 2.0]] * expected


def test_no_more_rounds_than_asked_for() -> None:
    assert len(take_rounds(2, lambda order: [[1.0], [1.0]], 60.0, 2, most=4).orders) == 4


def test_ratios_are_of_the_same_round() -> None:
    times = np.array([[1.0, 2.0], [3.0, 6.0], [0.5, 1.0]])
    assert log_ratios(times) == pytest.approx(np.log([[1, 2]] * 3))
    assert log_ratios(times, baseline=1) == pytest.approx(np.log([[0.5, 1]] * 3))


@pytest.mark.parametrize("rounds", [6, 20, 200])
def test_nineteen_of_twenty_intervals_hold_the_true_median(rounds: int) -> None:
    random = np.random.default_rng(2)
    intervals = [interval(0.3 + 0.1 * random.standard_normal(rounds)) for _ in range(200)]
    held = sum(low <= 0.3 <= high for low, high in intervals)
    assert 180 <= held < 200


def test_the_standard_error_is_that_of_the_median_and_outliers_do_not_widen_it() -> None:
    random = np.random.default_rng(3)
    values = random.standard_normal((2000, 101))
    true = float(np.std(np.median(values, axis=1)))
    assert standard_error(values[0]) == pytest.approx(true, rel=0.25)
    spoilt = values[0].copy()
    spoilt[:5] = 1e6
    assert standard_error(spoilt) == pytest.approx(standard_error(values[0]), rel=0.25)


SAME, FASTER, SLOWER = (1.0, 1.0), (0.95, 0.95), (1.05, 1.05)


def test_what_is_faster_by_more_than_the_noise_wins(compare: Callable[..., PairedResult]) -> None:
    for seed in range(20):
        result = compare(Simulated([SAME, FASTER], 0.02, seed))
        assert result.wins
        assert result.ratio == pytest.approx(np.log(0.95), abs=0.01)
        assert not compare(Simulated([SAME, SLOWER], 0.02, seed)).wins


def test_what_is_the_same_hardly_ever_wins(compare: Callable[..., PairedResult]) -> None:
    wins = sum(compare(Simulated([SAME, SAME], 0.05, seed)).wins for seed in range(100))
    assert wins <= 5


def test_a_small_gain_needs_more_rounds_than_noise_allows(
    compare: Callable[..., PairedResult],
) -> None:
    slight = (0.985, 0.985)
    assert not compare(Simulated([SAME, slight], 0.2, 1), seconds=0.05).wins
    assert compare(Simulated([SAME, slight], 0.02, 1), seconds=2.0).wins


def test_what_is_slower_with_one_number_of_threads_does_not_win(
    compare: Callable[..., PairedResult],
) -> None:
    assert not compare(Simulated([SAME, (0.8, 1.05)], 0.01, 0)).wins
    assert not compare(Simulated([SAME, (1.05, 0.8)], 0.01, 0)).wins


def test_a_machine_that_slows_down_meanwhile_changes_nothing(
    compare: Callable[..., PairedResult],
) -> None:
    result = compare(Simulated([SAME, FASTER], 0.01, 3, lambda now: 1 + 2 * (now > 0.3)))
    assert result.wins
    assert result.ratio == pytest.approx(np.log(0.95), abs=0.01)


def test_the_placement_of_arrays_wins_nothing(compare: Callable[..., PairedResult]) -> None:
    won = sum(
        compare(Simulated([SAME, SAME], 0.01, s, placing=0.1), moves=4).wins for s in range(40)
    )
    assert won <= 4
    assert compare(Simulated([SAME, (0.7, 0.7)], 0.01, 1, placing=0.05), moves=4).wins


def test_candidates_alternate_and_the_baseline_takes_part_twice(
    compare: Callable[..., PairedResult],
) -> None:
    device = Simulated([SAME, SAME, SAME], 0.01, 0)
    compare(device)
    rounds = [order for order in device.orders if sorted(order) == [0, 0, 1, 2]]
    assert len(rounds) > len(device.orders) - 3  # but for the first call of each
    followed = {pair for order in rounds for pair in itertools.pairwise(order)}
    assert {(1, 2), (2, 1), (0, 1), (1, 0), (2, 0), (0, 2)} <= followed


def test_seconds_are_told_for_each_number_of_threads(compare: Callable[..., PairedResult]) -> None:
    result = compare(Simulated([SAME, (2.0, 0.5)], 0.001, 0))
    assert result.seconds == pytest.approx((2e-3, 0.5e-3), rel=0.01)
    assert result.ratios == pytest.approx((np.log(2), np.log(0.5)), abs=0.01)


def test_a_short_time_still_gives_every_candidate_some_rounds(
    compare: Callable[..., PairedResult],
) -> None:
    device = Simulated([SAME, SAME], 0.01, 0)
    compare(device, seconds=0.0)
    assert len(device.orders) >= 2 * 4


def test_on_a_slow_machine_only_the_fastest_take_part(compare: Callable[..., PairedResult]) -> None:
    """A call takes 1.2 s there, and what is slowest 3 s."""
    slow = [(1200.0 * factor, 1200.0 * factor) for factor in (1.0, 0.9, 2.5, 1.1, 1.2, 1.3, 2.0)]
    device = Simulated(slow, 0.01, 0)
    last = compare(device, moves=4)
    assert last.ratio == pytest.approx(np.log(2.0), abs=0.05) and not last.wins
    assert not last.not_slower or last.noise == (np.inf, np.inf)
    assert all(set(order) == {0, 1} for order in device.orders[2:])
    assert device.now < 120
