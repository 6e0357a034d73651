"""Engines in turns, where the engines and their times are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ferplus_tvm.bench.report import warnings
from ferplus_tvm.bench.report.data import BenchWarning
from ferplus_tvm.bench.timing.interleaved import measure
from ferplus_tvm.bench.timing.load import Watch
from ferplus_tvm.bench.timing.process import EngineProcess, Turn
from ferplus_tvm.bench.timing.rows import where
from ferplus_tvm.errors import BenchError
from tests.artifacts import assert_sentence


class Made(EngineProcess):
    """An engine of a known time a call, in a machine that gets slower and slower."""

    turns: list[str]
    tired = False

    def __init__(
        self,
        name: str,
        seconds: float,
        turns: list[str],
        scores: Any = 1.0,
        precision: str = "float32",
    ) -> None:
        self.name, self.seconds, self.precision, self.version = name, seconds, precision, "1.0"
        self.scores = np.full((1, 8), scores, np.float32)
        self.restless = 0
        self.turns = turns

    def turn(self, calls: int, dropped: int) -> Turn:
        self.turns.append(self.name)
        assert dropped >= 1
        slower = 1 + 0.01 * len(self.turns)
        self.restless += self.tired
        return Turn(np.full(calls, self.seconds * slower), 0.0, 1e-3)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("engines", [2, 3, 4])
def test_every_engine_is_as_often_before_as_behind_every_other(engines: int) -> None:
    turns: list[str] = []
    made = [Made(f"engine{at}", 1e-3 * (at + 1), turns) for at in range(engines)]
    row, calls = measure(made, 1, 1, 0.05, lambda share: None)
    assert row.rounds >= 6 and row.rounds % 2 == 0
    for ratio, at in zip(row.ratios, range(1, engines), strict=True):
        # A round is slower at its end, which hurts whom it will: the order cancels that.
        assert ratio.ratio == pytest.approx(at + 1, rel=0.02)
        assert ratio.ours_first is not None and ratio.peer_first is not None
        assert ratio.ours_first < ratio.ratio * 1.05 and ratio.peer_first > ratio.ratio / 1.05
    rounds = turns[-engines * row.rounds :]
    before = sum(
        rounds.index("engine1", at) < rounds.index("engine0", at)
        for at in range(0, len(rounds), engines)
    )
    assert before == row.rounds / 2
    assert len(calls) == sum(each.calls for each in row.engines)


def test_raw_samples_tell_where_each_call_was_made() -> None:
    turns: list[str] = []
    made = [Made("ours", 2e-3, turns), Made("other", 4e-3, turns)]
    row, calls = measure(made, 8, 2, 0.0, lambda share: None, "jpeg")
    assert {(call.way, call.batch, call.threads) for call in calls} == {("jpeg", 8, 2)}
    by_round = [{c.engine: c.position for c in calls if c.round == r} for r in range(row.rounds)]
    assert all(sorted(positions.values()) == [0, 1] for positions in by_round)
    assert sum(positions["ours"] for positions in by_round) == row.rounds / 2
    own = [call.seconds for call in calls if call.engine == "ours"]
    assert row.engines[0].minimum == min(own)
    assert row.engines[0].p50 == pytest.approx(np.median(own))
    assert row.engines[0].faces_per_second == pytest.approx(8 / np.median(own))


def test_another_model_is_found_out() -> None:
    made = [Made("ours", 1e-3, []), Made("other", 1e-3, [], scores=1.2)]
    with pytest.raises(BenchError) as caught:
        measure(made, 1, 1, 0.0, lambda share: None)
    assert_sentence(str(caught.value), "other", "2.0e-01", "--model")


def test_another_precision_is_named_and_its_difference_told() -> None:
    made = [Made("ours", 1e-3, []), Made("other", 1e-3, [], 1.01, precision="bfloat16")]
    row, _ = measure(made, 1, 1, 0.0, lambda share: None)
    assert row.ratios[0].peer == row.engines[1].engine == "other (bfloat16)"
    assert row.engines[1].difference == pytest.approx(0.01, rel=1e-3)
    assert row.engines[0].engine == "ours" and row.engines[0].difference == 0


def test_too_few_calls_and_a_restless_engine_are_told() -> None:
    made = [Made("ours", 1e-2, []), Made("other", 1e-2, [])]
    made[1].tired = True
    row, _ = measure(made, 1, 1, 0.0, lambda share: None)
    told = " ".join(map(str, warnings.of_rows([row])))
    assert "calls of an engine are few" in told and "--seconds" in told
    assert "other did not come to rest" in told


def test_an_engine_that_never_gets_steady_is_told() -> None:
    class Wild(Made):
        def turn(self, calls: int, dropped: int) -> Turn:
            self.seconds *= 0.8
            return super().turn(calls, dropped)

    row, _ = measure([Made("ours", 1e-3, []), Wild("other", 1e-3, [])], 1, 1, 0.0, lambda _: None)
    assert [each.steady for each in row.engines] == [True, False]
    assert "other was not steady" in " ".join(map(str, warnings.of_rows([row])))


def test_other_load_and_too_many_threads_are_told() -> None:
    told = list(map(str, warnings.of_machine([1, 9999], busy=1.5)))
    assert "1.5 CPUs were busy" in told[0] and "9999 threads" in told[1]
    for sentence in told:
        assert_sentence(sentence)
    assert list(warnings.of_machine([1], busy=0.0)) == []


def test_a_changing_pace_is_seen() -> None:
    watch = Watch(paces=[1.0] * 10)
    assert watch.pace_change == 1
    watch = Watch(paces=[1.0, 1.5] * 10)
    assert watch.pace_change == pytest.approx(1.5)


def test_warnings_are_summed_up_in_a_line_for_each_topic() -> None:
    several = [
        BenchWarning("machine", "batch 1, 1 thread", "the CPU's own speed changed"),
        BenchWarning("machine", "batch 1, 1 thread", "other processes kept 1.0 CPUs busy"),
        BenchWarning("machine", "batch 8, 1 thread", "other processes kept 1.0 CPUs busy"),
        BenchWarning("samples", "batch 8, 1 thread", "3 calls of an engine are few"),
        BenchWarning("library", "", "3 of 39 kernels are not tuned: run 'ferplus-tvm tune'"),
    ]
    machine, few, library = warnings.summary(several, rows=4)
    assert "machine" in machine and "in 2 of 4 measurements" in machine
    assert "samples" in few and "in 1 of 4 measurements" in few
    assert library == "3 of 39 kernels are not tuned: run 'ferplus-tvm tune'"
    assert warnings.summary([], rows=4) == []
    assert str(several[0]) == "batch 1, 1 thread: the CPU's own speed changed"


def test_a_lower_precision_of_ours_is_no_other_model() -> None:
    made = [Made("ours", 1e-3, [], 1.01, precision="float16"), Made("other", 1e-3, [])]
    row, _ = measure(made, 1, 0, 0.0, lambda share: None, "on_gpu", peak=4000.0)
    assert [each.engine for each in row.engines] == ["ours (float16)", "other"]
    assert row.engines[1].difference == pytest.approx(0.01, rel=2e-2)
    assert row.engines[0].share_of_peak == pytest.approx(row.engines[0].faces_per_second / 4000)


@pytest.mark.parametrize(
    ("way", "threads", "told"),
    [
        ("scores", 1, "batch 8, 1 thread"),
        ("scores", 2, "batch 8, 2 threads"),
        ("jpeg", 2, "JPEG to label, batch 8, 2 threads"),
        ("scores", 0, "batch 8, host memory"),
        ("on_gpu", 0, "batch 8, GPU memory"),
    ],
)
def test_a_row_says_what_was_measured(way: str, threads: int, told: str) -> None:
    assert where(way, 8, threads) == told
