"""What is said of candidates whose times are known, under noise that is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ferplus_tvm.tuning import paired_timing as contests
from ferplus_tvm.tuning.paired_timing import PairedResult, time_pairs


class Simulated:
    """Gives times of 1 ms and a bit, and knows how late it is.

    factors
        of each contestant, for one thread and for several.
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
        self.places = np.ones(len(factors))

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        self.orders.append(tuple(order))
        answer = []
        for at in order:
            base = 1e-3 * self.factors[at][threads > 1] * self.machine(self.now) * self.places[at]
            calls = base * np.exp(self.noise * self.random.standard_normal(repeat))
            self.now += float(calls.sum())
            answer.append([float(call) for call in calls])
        return answer

    def move(self) -> None:
        self.places = np.exp(self.placing * self.random.standard_normal(len(self.factors)))


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PairedResult]:
    """Return how the last comparisonant stands beside the first."""

    def run(place: Simulated, seconds: float = 1.0, moves: int = 0) -> PairedResult:
        monkeypatch.setattr(contests.time, "perf_counter", lambda: place.now)
        return time_pairs(place, range(len(place.factors)), (1, 2), seconds, moves)[-1]

    return run


SAME, FASTER, SLOWER = (1.0, 1.0), (0.95, 0.95), (1.05, 1.05)


def test_what_is_faster_by_more_than_the_noise_wins(stand: Callable[..., PairedResult]) -> None:
    for seed in range(20):
        standing = stand(Simulated([SAME, FASTER], 0.02, seed))
        assert standing.wins
        assert standing.ratio == pytest.approx(np.log(0.95), abs=0.01)
        assert not stand(Simulated([SAME, SLOWER], 0.02, seed)).wins


def test_what_is_the_same_hardly_ever_wins(stand: Callable[..., PairedResult]) -> None:
    wins = sum(stand(Simulated([SAME, SAME], 0.05, seed)).wins for seed in range(100))
    assert wins <= 5


def test_a_small_gain_needs_more_rounds_than_noise_allows(
    stand: Callable[..., PairedResult],
) -> None:
    slight = (0.985, 0.985)
    assert not stand(Simulated([SAME, slight], 0.2, 1), seconds=0.05).wins
    assert stand(Simulated([SAME, slight], 0.02, 1), seconds=2.0).wins


def test_what_is_slower_with_one_number_of_threads_does_not_win(
    stand: Callable[..., PairedResult],
) -> None:
    assert not stand(Simulated([SAME, (0.8, 1.05)], 0.01, 0)).wins
    assert not stand(Simulated([SAME, (1.05, 0.8)], 0.01, 0)).wins


def test_a_machine_that_slows_down_meanwhile_changes_nothing(
    stand: Callable[..., PairedResult],
) -> None:
    standing = stand(Simulated([SAME, FASTER], 0.01, 3, lambda now: 1 + 2 * (now > 0.3)))
    assert standing.wins
    assert standing.ratio == pytest.approx(np.log(0.95), abs=0.01)


def test_what_comes_of_where_arrays_lie_wins_nothing(stand: Callable[..., PairedResult]) -> None:
    won = sum(stand(Simulated([SAME, SAME], 0.01, s, placing=0.1), moves=4).wins for s in range(40))
    assert won <= 4
    assert stand(Simulated([SAME, (0.7, 0.7)], 0.01, 1, placing=0.05), moves=4).wins


def test_contestants_alternate_and_the_incumbent_has_a_twin(
    stand: Callable[..., PairedResult],
) -> None:
    place = Simulated([SAME, SAME, SAME], 0.01, 0)
    stand(place)
    rounds = [order for order in place.orders if sorted(order) == [0, 0, 1, 2]]
    assert len(rounds) > len(place.orders) - 3  # but for the first call of each
    followed = {pair for order in rounds for pair in itertools.pairwise(order)}
    assert {(1, 2), (2, 1), (0, 1), (1, 0), (2, 0), (0, 2)} <= followed


def test_seconds_are_told_for_each_number_of_threads(stand: Callable[..., PairedResult]) -> None:
    standing = stand(Simulated([SAME, (2.0, 0.5)], 0.001, 0))
    assert standing.seconds == pytest.approx((2e-3, 0.5e-3), rel=0.01)
    assert standing.ratios == pytest.approx((np.log(2), np.log(0.5)), abs=0.01)


def test_a_short_time_still_gives_every_contestant_some_rounds(
    stand: Callable[..., PairedResult],
) -> None:
    place = Simulated([SAME, SAME], 0.01, 0)
    stand(place, seconds=0.0)
    assert len(place.orders) >= 2 * 4


def test_on_a_slow_machine_only_the_fastest_take_part(stand: Callable[..., PairedResult]) -> None:
    """A call takes 1.2 s there, and what is slowest 3 s."""
    slow = [(1200.0 * factor, 1200.0 * factor) for factor in (1.0, 0.9, 2.5, 1.1, 1.2, 1.3, 2.0)]
    place = Simulated(slow, 0.01, 0)
    last = stand(place, moves=4)
    assert last.ratio == pytest.approx(np.log(2.0), abs=0.05) and not last.wins
    assert not last.not_slower or last.noise == (np.inf, np.inf)
    assert all(set(order) == {0, 1} for order in place.orders[2:])
    assert place.now < 100
