"""SingleStream and Offline, as MLPerf Inference's rules define them, each engine alone.

SingleStream: one face after the other; the 90th percentile of latency, by early stopping, over at
least 600 s.  Offline: all faces in one query; throughput, over at least 600 s and 24,576 faces
(MLPerf Inference rules, section 3).  The short form keeps the definitions and lasts seconds, so
that its figures are none by the rules; and neither form is a submission, which has its own data set
and load generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ferplus_tvm.bench import samples
from ferplus_tvm.bench.process import EngineProcess
from ferplus_tvm.errors import BenchError


@dataclass(frozen=True)
class Form:
    """How long a scenario lasts at least."""

    name: str
    seconds: float
    queries: int
    faces: int


FORMS = {
    "short": Form("short", 5.0, 64, 1024),
    "full": Form("full", 600.0, 64, 24_576),
}


@dataclass(frozen=True)
class Outcome:
    """What an engine reached in a scenario.

    scenario
        ``SingleStream`` or ``Offline``.
    metric
        seconds (the 90th percentile, by early stopping), or faces a second.
    count
        queries, or faces.
    """

    scenario: str
    form: str
    engine: str
    threads: int
    batch: int
    metric: float
    count: int
    seconds: float


def single_stream(processes: Sequence[EngineProcess], threads: int, form: Form) -> list[Outcome]:
    """Run SingleStream on engines that were opened for one face."""
    outcomes = []
    for process in processes:
        told = process.ask("single_stream", form.seconds, queries=form.queries)
        latencies = told["seconds"]
        metric = samples.early_stopping_estimate(latencies, 90)
        if metric is None:
            raise BenchError(
                f"{len(latencies)} queries are too few for the 90th percentile: expected "
                f"{form.queries} or more; run it again, and report this"
            )
        outcomes.append(
            Outcome(
                "SingleStream",
                form.name,
                process.label,
                threads,
                1,
                metric,
                len(latencies),
                sum(latencies),
            )
        )
    return outcomes


def offline(
    processes: Sequence[EngineProcess], threads: int, batch: int, form: Form
) -> list[Outcome]:
    """Run Offline on engines that were opened for a batch size."""
    outcomes = []
    for process in processes:
        told = process.ask("offline", form.seconds, faces=form.faces)
        rate = told["faces"] / told["seconds"]
        outcomes.append(
            Outcome(
                "Offline",
                form.name,
                process.label,
                threads,
                batch,
                rate,
                told["faces"],
                told["seconds"],
            )
        )
    return outcomes
