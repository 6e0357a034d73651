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
from ferplus_tvm.artifact.manifest import Manifest
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
    benchmark: Any,
    open_engine: Callable[..., Opened],
    manifest: Manifest,
    kind: str,
    batch: int,
    threads: int,
) -> None:
    """Faces to scores."""
    benchmark.group = where("scores", batch, threads)
    opened = open_engine(kind, threads, batch)
    given = faces(batch, manifest.face_shape)
    benchmark.extra_info.update(precision=opened.precision, version=opened.version)
    quiet.wait()
    scores = benchmark(opened.scores, given)
    ours = open_engine(OURS, threads, batch).scores(given)
    allowed = 1e-3 if opened.precision == "float32" else 0.5
    assert reference_inputs.relative_error(scores, ours.astype(np.float64)) < allowed


@pytest.mark.parametrize("kind", [OURS, *CPU_PEERS])
@pytest.mark.parametrize("threads", THREADS)
def test_jpeg_to_label(
    benchmark: Any,
    open_engine: Callable[..., Opened],
    manifest: Manifest,
    kind: str,
    threads: int,
) -> None:
    """A JPEG's bytes to the label of the face."""
    benchmark.group = where("jpeg", 1, threads)
    opened = open_engine(kind, threads, 1)
    jpeg = sample_jpeg()
    quiet.wait()
    channels, size, _ = manifest.face_shape

    def label_of() -> str:
        face = preprocess(jpeg, size=size, channels=channels)
        return postprocess(opened.scores(face), manifest.labels)[0].label

    label = benchmark(label_of)
    ours = open_engine(OURS, threads, 1).engine.predict(jpeg).label
    assert label == ours or opened.precision != "float32"
