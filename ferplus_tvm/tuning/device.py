"""A device to measure on, as the tuner sees it: a child process, which may die without harm."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import DeviceError, last_line
from ferplus_tvm.tuning import runner
from ferplus_tvm.tuning.runner import Address
from ferplus_tvm.tuning.space import Config
from ferplus_tvm.tuning.task import Task

_WAIT = 60  # seconds for a device to become free
_TIMEOUT = 1800  # seconds for one job, of which most take less than one, but not on a small board


class Device:
    """A machine to measure on: the one at hand, or one that a tracker gives out.

    threads
        how many keep the device busy, or as many as were asked for; 0 before it is first held.
    measuring
        seconds spent in turns so far.
    """

    def __init__(self, address: Address | None, threads: int | None) -> None:
        from tvm.support.popen_pool import PopenWorker

        self._address = address
        self._asked = threads
        self._worker = PopenWorker()
        self.threads = threads or 0
        self.measuring = 0.0

    def prepare(self) -> None:
        """Start the child process, which imports TVM."""
        self._call(_TIMEOUT, runner.prepare)

    def hold(self) -> None:
        """Take the device; what was sent to it before is gone.

        Raises
        ------
        DeviceError
            If none is free within a minute, or it cannot be reached.
        """
        self.threads = self._call(_WAIT, runner.hold, self._address, self._asked)

    def release(self) -> None:
        """Give it back."""
        self._call(_TIMEOUT, runner.release)

    def begin_kernels(self, task: Task) -> None:
        """Take in candidates for a layer from now on."""
        self._call(_TIMEOUT, runner.begin_kernels, task)

    def admit_kernel(self, path: Path, config: Config) -> str | None:
        """Take in a candidate, or return why it is not one."""
        answer: str | None = self._call(_TIMEOUT, runner.admit_kernel, path, config)
        return answer

    def begin_networks(self, batch: int) -> None:
        """Take in networks from now on."""
        self._call(_TIMEOUT, runner.begin_networks, batch)

    def admit_network(self, path: Path, function: str, weights: dict[str, Path]) -> Any:
        """Take in a network, and return its scores."""
        return self._call(_TIMEOUT, runner.admit_network, path, function, weights)

    def turns(self, order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
        """Return the seconds of ``repeat`` calls for each turn; see `runner.turns`."""
        start = time.perf_counter()
        try:
            answer: list[list[float]] = self._call(
                _TIMEOUT, runner.turns, list(order), threads, repeat
            )
        finally:
            self.measuring += time.perf_counter() - start
        return answer

    def move(self) -> None:
        """Have the candidates' arrays lie elsewhere in memory; see `runner.move`."""
        self._call(_TIMEOUT, runner.move)

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


def count_devices(address: Address) -> int:
    """Return how many devices a tracker has under a key.

    Raises
    ------
    DeviceError
        If the tracker cannot be reached, or has none.
    """
    from tvm import rpc

    place = f"{address.host}:{address.port}"
    try:
        # TVM itself would try for a minute.
        socket.create_connection((address.host, address.port), timeout=5).close()
        summary = rpc.connect_tracker(address.host, address.port).summary()
    except Exception as error:  # TVM raises several kinds
        raise DeviceError(
            f"there is no RPC tracker at {place} ({last_line(error)}): start one with 'python -m "
            "tvm.exec.rpc_tracker'"
        ) from error
    wanted = f"server:{address.key}"
    count: int = sum(info.get("key") == wanted for info in summary["server_info"])
    if not count:
        raise DeviceError(
            f"the RPC tracker at {place} knows no device with the key {address.key!r}: start one "
            f"with 'python -m tvm.exec.rpc_server --tracker {place} --key {address.key}'"
        )
    return count
