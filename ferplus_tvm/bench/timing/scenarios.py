"""SingleStream and Offline, as MLPerf Inference's rules define them, each engine alone.

SingleStream: one face after the other; the 90th percentile of latency, by early stopping, over at
least 600 s.  Offline: all faces in one query; throughput, over at least 600 s and 24,576 faces
(MLPerf Inference rules, section 3).  The short form keeps the definitions and lasts seconds, so
that its figures are none by the rules; and neither form is a submission, which has its own data set
and load generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ferplus_tvm.bench.timing.interleaved import difference
from ferplus_tvm.bench.timing.process import EngineProcess
from ferplus_tvm.bench.timing.rows import Call
from ferplus_tvm.bench.timing.samples import early_stopping_estimate

_MARGIN = 1.1  # so that the query lasts as long as it should


@dataclass(frozen=True)
class Form:
    """How long a scenario lasts at least.

    Attributes
    ----------
    name
        ``short`` or ``full``.
    seconds
        Of each scenario.
    queries
        Of SingleStream.
    faces
        Of Offline.
    """

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

    Attributes
    ----------
    scenario
        ``SingleStream`` or ``Offline``.
    form
        ``short`` or ``full``.
    engine
        The engine's name.
    threads
        The threads of the engine; 0 on a GPU.
    batch
        The faces of a call.
    metric
        Of SingleStream the 90th percentile of latency in seconds, by early stopping; of Offline
        faces per second.
    count
        The queries of SingleStream, or the faces of Offline.
    seconds
        How long it lasted.
    """

    scenario: str
    form: str
    engine: str
    threads: int
    batch: int
    metric: float
    count: int
    seconds: float


def single_stream(
    processes: Sequence[EngineProcess], threads: int, form: Form
) -> tuple[list[Outcome], list[Call]]:
    """Run SingleStream on engines that were opened for one face; return its raw samples too.

    Raises
    ------
    BenchError
        If an engine ends, or answers as another model does.
    """
    outcomes, calls = [], []
    for at, process in enumerate(processes):
        difference(processes[0], process)
        told = process.ask(
            "single_stream", form.seconds, duration=form.seconds, queries=form.queries
        )
        latencies = told["seconds"]
        metric = early_stopping_estimate(latencies, 90)
        assert metric is not None  # by the number of queries
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
        calls += [
            Call("SingleStream", 1, threads, 0, at, process.label, call, seconds)
            for call, seconds in enumerate(latencies)
        ]
    return outcomes, calls


def offline(
    processes: Sequence[EngineProcess], threads: int, batch: int, form: Form
) -> list[Outcome]:
    """Run Offline on engines that were opened for a batch size.

    As LoadGen's, the query is made as large as a rate that was measured before says.

    Raises
    ------
    BenchError
        If an engine ends, or answers as another model does.
    """
    outcomes = []
    for process in processes:
        difference(processes[0], process)
        one = float(np.median(process.turn(3, 1).seconds))
        batches = math.ceil(max(form.faces / batch, _MARGIN * form.seconds / one))
        seconds = process.ask("offline", 2 * batches * one, batches=batches)["seconds"]
        rate = batches * batch / seconds
        outcomes.append(
            Outcome(
                "Offline", form.name, process.label, threads, batch, rate, batches * batch, seconds
            )
        )
    return outcomes
