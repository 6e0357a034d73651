"""A device to measure on, as the tuner sees it: a child process, which may die without harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import DeviceError, last_line
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning import worker
from ferplus_tvm.tuning.address import Address
from ferplus_tvm.tuning.task import LayerTask

_WAIT = 60  # seconds for a device to become free
_ANSWER = 15  # seconds for a tracker to say which devices it has
_TIMEOUT = 1800  # seconds for one job, of which most take less than one, but not on a small board


class Device:
    """A machine to measure on: the one at hand, or one that a tracker gives out.

    Attributes
    ----------
    threads
        How many keep the device busy, or as many as were asked for; 0 before it is first held.
    measuring
        Seconds spent in turns so far.
    """

    def __init__(
        self,
        address: Address | None,
        threads: int | None,
        interrupted: threading.Event,
        on_gpu: bool = False,
    ) -> None:
        """Make one that is lost where it is measured on after an interrupt.

        ``on_gpu`` makes it the machine's GPU.
        """
        from tvm.support.popen_pool import PopenWorker

        self._address = address
        self._asked = threads
        self._on_gpu = on_gpu
        self._interrupted = interrupted
        self._worker = PopenWorker()
        self.threads = threads or 0
        self.measuring = 0.0

    def prepare(self) -> None:
        """Start the child process, which imports TVM."""
        self._call(_TIMEOUT, worker.prepare)

    def count(self) -> int:
        """Return how many devices there are to measure on: this machine, or those with the key.

        Raises
        ------
        DeviceError
            If the tracker cannot be reached, or has none.
        """
        if self._address is None:
            return 1
        place = f"{self._address.host}:{self._address.port}"
        try:
            count: int = self._call(_ANSWER, worker.count, self._address)
        except DeviceError as error:
            raise DeviceError(
                f"what listens at {place} does not answer as an RPC tracker of this TVM does: "
                "see that 'python -m tvm.exec.rpc_tracker' runs there, of the same version"
            ) from error
        if not count:
            key = self._address.key
            raise DeviceError(
                f"the RPC tracker at {place} knows no device with the key {key!r}: start one "
                f"with 'python -m tvm.exec.rpc_server --tracker {place} --key {key}'"
            )
        return count

    def hold(self) -> None:
        """Take the device; what was sent to it before is gone.

        Raises
        ------
        DeviceError
            If none is free within a minute, or it cannot be reached.
        """
        self.threads = self._call(_WAIT, worker.hold, self._address, self._asked, self._on_gpu)

    def release(self) -> None:
        """Give it back."""
        self._call(_TIMEOUT, worker.release)

    def begin_kernels(self, task: LayerTask) -> None:
        """Take in candidates for a layer from now on."""
        self._call(_TIMEOUT, worker.begin_kernels, task)

    def admit_kernel(self, path: Path, config: Config) -> str | None:
        """Take in a candidate, or return why it is not one."""
        answer: str | None = self._call(_TIMEOUT, worker.admit_kernel, path, config)
        return answer

    def begin_networks(self, faces: tuple[int, ...]) -> None:
        """Take in networks from now on."""
        self._call(_TIMEOUT, worker.begin_networks, faces)

    def admit_network(self, path: Path, function: str, weights: dict[str, Path]) -> Any:
        """Take in a network, and return its scores."""
        return self._call(_TIMEOUT, worker.admit_network, path, function, weights)

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        """Return the seconds of ``repeat`` calls for each turn; see `worker.turns`."""
        if self._interrupted.is_set():
            raise DeviceError(f"{self} is no longer wanted")
        start = time.perf_counter()
        try:
            answer: list[list[float]] = self._call(
                _TIMEOUT, worker.turns, list(order), threads, repeat
            )
        finally:
            self.measuring += time.perf_counter() - start
        return answer

    def move(self) -> None:
        """Have the candidates' arrays lie elsewhere in memory; see `worker.move`."""
        self._call(_TIMEOUT, worker.move)

    def close(self) -> None:
        """End the child process."""
        self._worker.kill()

    def _call(self, timeout: float, function: Callable[..., Any], *arguments: Any) -> Any:
        self._worker.send(function, arguments, timeout=timeout)
        try:
            return self._worker.recv()
        except ChildProcessError as error:
            raise DeviceError(f"{self} went away in the middle of a job: {_ADVICE}") from error
        except TimeoutError as error:
            raise DeviceError(f"{self} did not answer within {timeout:.0f} s: {_ADVICE}") from error
        except Exception as error:  # TVM's RPC raises several kinds
            self._worker.kill()
            reason = last_line(error)
            raise DeviceError(f"{self} cannot be used ({reason}): {_ADVICE}") from error

    def __str__(self) -> str:
        if self._address is None:
            return "the process that measures"
        return f"a device with the key {self._address.key!r}"


_ADVICE = "see that it is up, and run the same command again, which goes on where this one ended"
