"""An engine in a process of its own, as the measurement sees it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.bench.engines.opened import OURS, Scores
from ferplus_tvm.errors import BenchError, last_line
from ferplus_tvm.host import child

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
        self, name: str, kind: str, path: str, threads: int, batch: int, device: str = "cpu"
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
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            child.python("-m", "ferplus_tvm.bench.timing.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            encoding="utf-8",
            env=_environment(),
            # Ctrl-C at a terminal is for the command; it ends this process by closing it.
            start_new_session=os.name == "posix",
        )
        try:
            told = self.ask(
                "open", kind=kind, path=path, threads=threads, batch=batch, device=device
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
        self.scores = np.array(self.ask(f"begin_{way}")["scores"], np.float32)

    def begin_jpeg(self, jpeg: bytes) -> str:
        """Make a call the way from a JPEG to a label, and return the label."""
        return str(self.ask("begin_jpeg", jpeg=jpeg.hex())["label"])

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
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds + _PATIENCE, give_up)
        timer.start()
        line = ""
        try:
            with contextlib.suppress(OSError):  # a broken pipe, told below
                self._process.stdin.write(json.dumps({"do": order, **options}) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise BenchError(
                f"{self.name} did not answer within {seconds + _PATIENCE:.0f} s: "
                f"{self._advice}, or measure smaller batches"
            )
        if not line.endswith("\n"):  # nothing, or the beginning of an answer
            status = self._process.wait()
            self._noise.seek(0)
            said = last_line(Exception(self._noise.read().decode(errors="replace")))
            raise BenchError(
                f"the process of {self.name} ended with status {status} ({said}): "
                f"{self._advice}, or see that there is memory for it"
            )
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            reason = f"{told['kind']}: {last_line(Exception(told['error']))}"
            raise BenchError(f"{self.name} cannot be measured ({reason}): {self._advice}")
        return told

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._noise.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Return the child's environment, without what would have oneDNN compute in bfloat16."""
    lower = ("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE")
    return {name: value for name, value in child.environment().items() if name not in lower}
