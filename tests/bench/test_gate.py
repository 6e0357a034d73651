"""A report against the one that was kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ferplus_tvm.bench import gate
from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.timing.rows import EngineTime, Row
from ferplus_tvm.bench.timing.samples import Ratio
from ferplus_tvm.errors import BenchError
from tests.artifacts import assert_sentence


def report(ratio: float, spread: float = 0.01, seconds: float = 1.0, cpu: str = "a CPU") -> Report:
    """A report of one row: ours, and a peer that takes so much longer."""
    ours = EngineTime(
        "ferplus_tvm", "1", "float32", 300, seconds, seconds, None, None, 1, 0, 1, True, 0
    )
    other = replace(ours, engine="other", p50=ratio * seconds)
    told = Ratio("other", ratio, ratio * (1 - spread), ratio * (1 + spread), ratio, ratio, 30)
    row = Row("scores", 1, 2, 30, (ours, other), (told,), 0.0, 1.0)
    return Report("2026-01-01", "a test", {"cpu": cpu}, {}, {}, (row,))


def test_what_is_as_fast_or_faster_passes() -> None:
    for ratio in (3.0, 3.3, 2.9):
        gate.expect(gate.compare(report(ratio), report(3.0)), 0.05)


def test_what_is_surely_slower_fails_with_the_reason() -> None:
    changes = gate.compare(report(2.5), report(3.0))
    assert changes[0].slowdown == pytest.approx(0.2)
    with pytest.raises(BenchError) as caught:
        gate.expect(changes, 0.05)
    assert_sentence(str(caught.value), "beside other", "20.0% slower", "at most 5.0%")
    gate.expect(changes, 0.2)


def test_what_the_noise_may_explain_passes() -> None:
    gate.expect(gate.compare(report(2.7, spread=0.1), report(3.0, spread=0.1)), 0.05)


def test_a_slower_machine_is_no_slowdown_beside_a_peer() -> None:
    gate.expect(gate.compare(report(3.0, seconds=2.0), report(3.0)), 0.05)


def test_a_peer_of_another_version_is_no_measure() -> None:
    baseline, now = report(3.0), report(2.0)
    ours, other = now.rows[0].engines
    newer = replace(now.rows[0], engines=(ours, replace(other, version="2")))
    gate.expect(gate.compare(replace(now, rows=(newer,)), baseline), 0.05)  # by its own time
    elsewhere = replace(now, rows=(newer,), environment={"cpu": "another CPU"})
    with pytest.raises(BenchError, match="of the same versions"):
        gate.compare(elsewhere, baseline)


def alone(whole: Report) -> Report:
    (row,) = whole.rows
    return replace(whole, rows=(replace(row, engines=row.engines[:1], ratios=()),))


def test_without_a_peer_times_are_compared_on_the_same_cpu_only() -> None:
    baseline = report(3.0)
    with pytest.raises(BenchError, match="slower than the baseline"):
        gate.expect(gate.compare(alone(report(3.0, seconds=1.2)), baseline), 0.05)
    with pytest.raises(BenchError) as caught:
        gate.compare(alone(report(3.0, cpu="another CPU")), baseline)
    assert_sentence(str(caught.value), "same CPU", "--peers")
    on_gpus = [
        replace(alone(report(3.0)), environment={"cpu": "a CPU", "gpu": {"name": name}})
        for name in ("a GPU", "another GPU")
    ]
    assert gate.compare(on_gpus[0], on_gpus[0])[0].slowdown == 0
    with pytest.raises(BenchError, match="GPU"):
        gate.compare(*on_gpus)


def test_other_rows_are_nothing_to_compare() -> None:
    baseline = report(3.0)
    other = replace(baseline, rows=(replace(baseline.rows[0], batch=8),))
    with pytest.raises(BenchError) as caught:
        gate.compare(other, baseline)
    assert_sentence(str(caught.value), "--batch")
