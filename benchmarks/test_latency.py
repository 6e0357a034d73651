"""Time of a call, engine after engine: ``pytest benchmarks``.

pytest-benchmark measures one engine after the other; ``ferplus-tvm bench`` measures them in turns,
which a machine that slows down in between does not disturb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.bench.engines.catalog import CPU_KINDS, CPU_PEERS
from ferplus_tvm.bench.engines.opened import OURS, Opened, faces
from ferplus_tvm.bench.measurements import sample_jpeg
from ferplus_tvm.bench.timing import quiet
from ferplus_tvm.bench.timing.rows import where
from ferplus_tvm.faces.postprocess import postprocess
from ferplus_tvm.faces.preprocess import preprocess
from ferplus_tvm.host import cpu

THREADS = sorted({1, cpu.default_threads()})


@pytest.mark.parametrize("kind", CPU_KINDS)
@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("threads", THREADS)
def test_scores(
    benchmark: Any, open_engine: Callable[..., Opened], kind: str, batch: int, threads: int
) -> None:
    """Faces to scores."""
    benchmark.group = where("scores", batch, threads)
    opened = open_engine(kind, threads, batch)
    given = faces(batch)
    benchmark.extra_info.update(precision=opened.precision, version=opened.version)
    quiet.wait()
    scores = benchmark(opened.scores, given)
    ours = open_engine(OURS, threads, batch).scores(given)
    allowed = 1e-3 if opened.precision == "float32" else 0.5
    assert reference_inputs.relative_error(scores, ours.astype(np.float64)) < allowed


@pytest.mark.parametrize("kind", [OURS, *CPU_PEERS])
@pytest.mark.parametrize("threads", THREADS)
def test_jpeg_to_label(
    benchmark: Any, open_engine: Callable[..., Opened], kind: str, threads: int
) -> None:
    """A JPEG's bytes to the label of the face."""
    benchmark.group = where("jpeg", 1, threads)
    opened = open_engine(kind, threads, 1)
    jpeg = sample_jpeg()
    quiet.wait()
    label = benchmark(lambda: postprocess(opened.scores(preprocess(jpeg)))[0].label)
    ours = open_engine(OURS, threads, 1).engine.predict(jpeg).label
    assert label == ours or opened.precision != "float32"
