"""An engine in a process of its own, as the measurement sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.bench.engines.opened import FERPLUS_FACE, OURS, FaceShape, Scores
from ferplus_tvm.bench.timing import worker
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.host.child import Child, ChildDiedError, ChildTimeoutError, environment

_PATIENCE = 300.0  # seconds for an answer, beyond what was asked for


class Turn(NamedTuple):
    """A turn of an engine.

    Attributes
    ----------
    seconds
        Of each of its calls, in order.
    cpu
        The CPU time of the whole turn in seconds.
    pace
        The seconds of a fixed piece of work after it: how fast the CPU was.
    """

    seconds: NDArray[np.float64]
    cpu: float
    pace: float


class EngineProcess:
    """An engine in a process of its own.

    Attributes
    ----------
    name
        Its name in a report, without the precision.
    precision, version
        As the engine says itself.
    ways
        What it can be asked for: ``scores``, ``on_gpu`` or both.
    off_float64
        How far our engine's scores are off the float64 reference in its library, relative to the
        largest; None for other engines.
    scores
        Its scores, of the way that `begin` has named.
    restless
        The turns after which its threads went on working.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        path: str,
        threads: int,
        batch: int,
        face: FaceShape = FERPLUS_FACE,
        device: str = "cpu",
    ) -> None:
        """Start the process and open the engine.

        Raises
        ------
        BenchError
            If it cannot be opened.
        """
        self.name = name
        self._advice = (
            "see what 'ferplus-tvm verify' says of it"
            if name == OURS
            else "leave it out of --peers"
        )
        self.restless = 0
        self.scores: Scores
        self._child = Child(_environment())
        try:
            told = self.ask(
                "open",
                kind=kind,
                path=path,
                threads=threads,
                batch=batch,
                face=face,
                device=device,
            )
        except BaseException:
            self.close()
            raise
        self.precision, self.version = str(told["precision"]), str(told["version"])
        self.ways = tuple(str(way) for way in told["ways"])
        self.off_float64: float | None = told["off_float64"]

    @property
    def label(self) -> str:
        """Its name, with the precision where that is not float32."""
        return self.name if self.precision == "float32" else f"{self.name} ({self.precision})"

    def begin(self, way: str) -> None:
        """Make a call what ``way`` names, ``scores`` or ``on_gpu``, and take in the scores."""
        self.scores = self.ask(f"begin_{way}")["scores"]

    def begin_jpeg(self, jpeg: bytes, labels: Sequence[str]) -> str:
        """Make a call the way from a JPEG to one of the labels, and return that."""
        return str(self.ask("begin_jpeg", jpeg=jpeg, labels=labels)["label"])

    def turn(self, calls: int, dropped: int) -> Turn:
        """Call so often in a row, after some calls that are dropped."""
        told = self.ask("turn", calls=calls, dropped=dropped)
        self.restless += not told["rests"]
        return Turn(np.array(told["seconds"]), float(told["cpu"]), float(told["pace"]))

    def ask(self, order: str, seconds: float = 0.0, **options: Any) -> dict[str, Any]:
        """Give an order that takes about so many seconds; return the answer.

        Raises
        ------
        BenchError
            If the process died, hangs, or cannot do it.
        """
        timeout = seconds + _PATIENCE
        try:
            told = self._child.call(worker.answer, order, options, timeout=timeout)
        except ChildTimeoutError:
            raise BenchError(
                f"{self.name} did not answer within {timeout:.0f} s: {self._advice}, or measure "
                "smaller batches"
            ) from None
        except ChildDiedError as error:
            raise BenchError(
                f"the process of {self.name} ended {error.how} ({error.last_line}): "
                f"{self._advice}, or see that there is memory for it"
            ) from None
        if "error" in told:
            reason = f"{told['kind']}: {last_line(Exception(told['error']))}"
            raise BenchError(f"{self.name} cannot be measured ({reason}): {self._advice}")
        return told

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Return the child's environment, without what would have oneDNN compute in bfloat16."""
    lower = ("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE")
    return {name: value for name, value in environment().items() if name not in lower}
