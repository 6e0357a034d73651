"""The interface of an engine that is open, and the faces that all engines are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.runtime.engine import Engine

Faces = NDArray[np.float32]
Scores = NDArray[np.float32]

FaceShape = tuple[int, int, int]
"""The shape of one face, (C, S, S)."""

FERPLUS_FACE: FaceShape = (1, 64, 64)

OURS = "ferplus_tvm"
"""The kind and the name of our own engine."""

_DIFFERENT = 64  # faces; more are repetitions, since making thousands takes long


@dataclass(frozen=True)
class OnGpu:
    """A call that finds its faces on the GPU and leaves its scores there.

    Attributes
    ----------
    call
        Returns the scores as the engine's own tensor, once they are computed.
    read
        Copies such a tensor to the host.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Scores]


@dataclass(frozen=True)
class Opened:
    """An engine that is ready to answer.

    Attributes
    ----------
    precision
        The precision of its arithmetic, as it says itself: ``float32``, ``bfloat16``, ...
    version
        The version of its package.
    scores
        Takes faces (N, C, S, S) and returns scores (N, K), both on the host, for the batch size
        that it was opened for; None for an engine that only works on the GPU's memory.
    on_gpu
        The call on the GPU's memory; None on a CPU.
    engine
        Our own engine; None for another.
    """

    precision: str
    version: str
    scores: Callable[[Faces], Scores] | None
    on_gpu: OnGpu | None = None
    engine: Engine | None = None


def faces(batch: int, face: FaceShape = FERPLUS_FACE) -> Faces:
    """Return what every engine is given: noise and blobs in turn, as a library is checked with."""
    different = reference_inputs.inputs(0, min(batch, _DIFFERENT), face)
    return different[np.arange(batch) % len(different)]


def off_float64(engine: Engine) -> float:
    """Return how far our engine's scores are off the float64 reference in its library.

    The error is relative to the largest score, as the library's tolerance is.
    """
    check = engine.manifest.check
    given = reference_inputs.inputs(check.seed, check.faces, engine.manifest.face_shape)
    scores = engine.scores(given)
    return reference_inputs.relative_error(scores, np.asarray(check.reference))
