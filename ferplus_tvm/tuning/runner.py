"""Runs kernels and networks where they are measured; lives in a child process.

The device is this machine, or one behind an RPC session, where everything that is run was sent to.
Every call is timed by TVM's own evaluator on the device, and comes after all operands but the first
have left the caches, as the rest of the network would have them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm import cpu
from ferplus_tvm.runtime.threads import limit_spinning
from ferplus_tvm.tuning.space import Config
from ferplus_tvm.tuning.task import TOLERANCE, Task

_FLUSH = "cache_flush_cpu_non_first_arg"


@dataclass(frozen=True)
class Address:
    """Devices that an RPC tracker knows by a key.

    seconds
        how long to wait for one, and how long to have it at most.
    """

    host: str
    port: int
    key: str
    seconds: int = 120

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``tracker:port/key``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        place, _, key = text.partition("/")
        host, _, port = place.rpartition(":")
        if not (host and key and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ValueError(f"{text!r} is no RPC address: expected tracker:port/key")
        return cls(host, int(port), key)


class _Runner:
    """A device while it is held, with what was sent to it."""

    def __init__(self, address: Address | None, threads: int | None) -> None:
        import tvm

        self.session: Any = None
        if address is None:
            limit_spinning()
            self.device = tvm.cpu()
            self._configure = tvm.get_global_func("runtime.config_threadpool")
            self.threads = threads or cpu.default_threads()
            self.use(self.threads)  # which makes the pool, and it never grows
            return
        from tvm import rpc

        tracker = rpc.connect_tracker(address.host, address.port)
        self.session = tracker.request(address.key, session_timeout=address.seconds)
        self.device = self.session.cpu()
        self._configure = self.session.get_function("runtime.config_threadpool")
        most = int(self.session.get_function("runtime.NumThreads")())
        self.threads = threads or most
        if self.threads > most:
            raise ValueError(
                f"its thread pool has {most} threads for the {threads} asked for; set "
                f"TVM_NUM_THREADS={threads} where its rpc_server is started"
            )

    def use(self, threads: int) -> None:
        """Have what is run from now on use so many threads, each pinned to a core of its own.

        Threads that the system may place where it likes share a core for their first tenths of a
        second, and take ten times as long.
        """
        if self.session is not None:
            big_cores = 1  # on most machines all of them; a list of cores does not pass through RPC
            self._configure(big_cores, threads)
            return
        one_core_per_thread = -2
        names = [str(number) for number in cpu.allowed()[:threads]]
        self._configure(one_core_per_thread, len(names), names)

    def load(self, path: Path) -> Any:
        """Return a shared library, sent to the device."""
        import tvm

        if self.session is None:
            return tvm.runtime.load_module(str(path))
        self.session.upload(str(path))
        return self.session.load_module(path.name)

    def tensor(self, array: NDArray[Any]) -> Any:
        """Return an array, sent to the device."""
        import tvm

        return tvm.runtime.tensor(array, self.device)


class _Kernels:
    """Candidates of one layer."""

    def __init__(self, runner: _Runner, task: Task) -> None:
        self.runner = runner
        self.task = task
        self.expected = task.expected()
        self.operands: dict[Any, list[list[Any]]] = {}
        self.calls: list[list[tuple[Any, list[Any]]]] = []

    def admit(self, path: Path, config: Config) -> str | None:
        layout = self.task.layout(config)
        if layout not in self.operands:
            self.operands[layout] = self._send(self.task.operands(config))
        module, operands = self.runner.load(path), self.operands[layout]
        calls = [(module[f"kernel{at}"], arguments) for at, arguments in enumerate(operands)]
        for function, arguments in calls:
            function(*arguments)
        answer = calls[-1][1][-1].numpy()
        # What is not a number compares as false.
        allowed = TOLERANCE * float(np.abs(self.expected).max())
        off = float(np.abs(answer - self.expected).max())
        if not off <= allowed:
            return f"its answer is off by {off:.1e}"
        self.calls.append([(module, arguments) for _, arguments in calls])
        return None

    def time(self, candidate: int, repeat: int) -> list[float]:
        device = self.runner.device
        total = np.zeros(repeat)
        for at, (module, arguments) in enumerate(self.calls[candidate]):
            evaluator = module.time_evaluator(
                f"kernel{at}", device, number=1, repeat=repeat, f_preproc=_FLUSH
            )
            total += evaluator(*arguments).results
        return [float(seconds) for seconds in total]

    def _send(self, calls: list[list[NDArray[Any]]]) -> list[list[Any]]:
        sent: dict[int, Any] = {}
        return [[sent.setdefault(id(a), self.runner.tensor(a)) for a in call] for call in calls]


class _Networks:
    """Whole networks of one batch size, with the same weights in different layouts."""

    def __init__(self, runner: _Runner, batch: int) -> None:
        self.runner = runner
        faces = np.random.default_rng(0).integers(0, 256, (batch, 1, 64, 64))
        self.faces = runner.tensor(faces.astype(np.float32))
        self.weights: dict[str, Any] = {}
        self.calls: list[tuple[Any, list[Any]]] = []

    def admit(self, path: Path, function: str, weights: dict[str, Path]) -> NDArray[np.float32]:
        from tvm import relax

        machine = relax.VirtualMachine(self.runner.load(path), self.runner.device)
        for name, file in weights.items():
            if name not in self.weights:
                self.weights[name] = self.runner.tensor(np.load(file))
        arguments = [self.faces, *(self.weights[name] for name in weights)]
        machine.set_input(function, *arguments)
        machine.invoke_stateful(function)
        scores: NDArray[np.float32] = machine.get_outputs(function).numpy()
        machine.save_function(function, "timed", *arguments)
        self.calls.append((machine, arguments))
        return scores

    def time(self, candidate: int, repeat: int) -> list[float]:
        machine, _ = self.calls[candidate]
        evaluator = machine.time_evaluator("timed", self.runner.device, number=1, repeat=repeat)
        return [float(seconds) for seconds in evaluator().results]


_runner: _Runner | None = None
_held: _Kernels | _Networks | None = None


def prepare() -> None:
    """Import what a job needs."""
    import tvm  # noqa: F401


def hold(address: Address | None, threads: int | None) -> int:
    """Take a device for up to ``threads``, by default what keeps it busy; return how many."""
    global _runner
    release()
    _runner = _Runner(address, threads)
    return _runner.threads


def release() -> None:
    """Give the device back."""
    global _runner, _held
    _runner = _held = None


def begin_kernels(task: Task) -> None:
    """Take in candidates for a layer from now on."""
    global _held
    assert _runner is not None
    _held = _Kernels(_runner, task)


def admit_kernel(path: Path, config: Config) -> str | None:
    """Take in a candidate, or return why it is not one: its answer is wrong."""
    assert isinstance(_held, _Kernels)
    return _held.admit(path, config)


def begin_networks(batch: int) -> None:
    """Take in networks from now on."""
    global _held
    assert _runner is not None
    _held = _Networks(_runner, batch)


def admit_network(path: Path, function: str, weights: dict[str, Path]) -> NDArray[np.float32]:
    """Take in a network, and return its scores for the faces that all of them get."""
    assert isinstance(_held, _Networks)
    return _held.admit(path, function, weights)


def turns(order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
    """Call candidates in turns; return the seconds of each turn's ``repeat`` counted calls."""
    assert _runner is not None and _held is not None
    _runner.use(threads)
    return [_held.time(candidate, repeat) for candidate in order]
