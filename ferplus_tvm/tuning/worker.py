"""Runs kernels and networks where they are measured; lives in a child process.

The device is this machine, or one behind an RPC session, where everything that is run was sent to.
Every call is timed by TVM's own evaluator on the device.  A kernel's comes after all operands but
the first have left the caches, as the rest of the network would have them do; a network's after a
pause.
"""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import DeviceError
from ferplus_tvm.host import cpu
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning.task import LayerTask

_FLUSH = "cache_flush_cpu_non_first_arg"
_LAUNCHES = 20
_SESSION = 3600  # seconds to have a device at most, beyond which its server ends the session
_PAUSE = 20  # milliseconds between the calls of a network, as between the pictures of a camera


@dataclass(frozen=True)
class Address:
    """The devices that an RPC tracker has under a key."""

    host: str
    port: int
    key: str

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

    def expect_tracker(self) -> None:
        """See that something listens; TVM itself would try for a minute.

        Raises
        ------
        DeviceError
            If nothing does.
        """
        try:
            socket.create_connection((self.host, self.port), timeout=5).close()
        except OSError:
            raise DeviceError(
                f"there is no RPC tracker at {self.host}:{self.port}: start one with 'python -m "
                "tvm.exec.rpc_tracker'"
            ) from None


class _Runner:
    """A device while it is held, with what was sent to it."""

    def __init__(self, address: Address | None, threads: int | None, on_gpu: bool = False) -> None:
        import tvm

        self.session: Any = None
        self.on_gpu = on_gpu
        if on_gpu:
            self._open_gpu(address)
            return
        if address is None:
            self.device = tvm.cpu()
            self._configure = tvm.get_global_func("runtime.config_threadpool")
            self.threads = min(threads or _default_threads(), len(_allowed()))
            self.use(self.threads)  # which makes the pool, and it never grows
            return
        from tvm import rpc

        tracker = rpc.connect_tracker(address.host, address.port)
        self.session = tracker.request(address.key, session_timeout=_SESSION)
        self.device = self.session.cpu()
        self._configure = self.session.get_function("runtime.config_threadpool")
        most = int(self.session.get_function("runtime.NumThreads")())
        self.threads = threads or most
        if self.threads > most:
            raise ValueError(
                f"its thread pool has {most} threads for the {threads} asked for; set "
                f"TVM_NUM_THREADS={threads} where its rpc_server is started"
            )

    def _open_gpu(self, address: Address | None) -> None:
        """Take a GPU, whose kernels know no threads of a CPU."""
        import tvm

        self.threads = 1
        if address is None:
            self.device = tvm.cuda()
            return
        from tvm import rpc

        tracker = rpc.connect_tracker(address.host, address.port)
        self.session = tracker.request(address.key, session_timeout=_SESSION)
        self.device = self.session.cuda()

    def use(self, threads: int) -> None:
        """Have what is run from now on use so many threads, each pinned to a core of its own.

        Threads that the system may place where it likes share a core for their first tenths of a
        second, and take ten times as long.  They look for work long enough, by TVM's default, to be
        awake when the next kernel comes, as they are within a network.
        """
        if self.on_gpu:
            return
        if self.session is not None:
            big_cores = 1  # on most machines all of them; a list of cores does not pass through RPC
            self._configure(big_cores, threads)
            return
        one_core_per_thread = -2
        names = [str(number) for number in _allowed()[:threads]]
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

    def copy(self, tensor: Any) -> Any:
        """Return a copy on the device."""
        return tensor.copyto(self.empty(tensor.shape, tensor.dtype))

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """Return memory of the device."""
        import tvm

        return tvm.runtime.empty(tuple(shape), dtype, self.device)


class _Kernels:
    """Candidates of one layer.

    All but the weights are the same arrays for all of them.  Where those happen to lie can make a
    tenth of a kernel's time, as its stores and loads get into each other's way; see `move`.
    """

    def __init__(self, runner: _Runner, task: LayerTask) -> None:
        self.runner = runner
        self.task = task
        self.expected = task.expected()
        self.tensors: dict[Hashable, Any] = {}
        self.operands: dict[Hashable, list[list[Hashable]]] = {}
        self.candidates: list[tuple[Any, list[list[Hashable]]]] = []
        self._blanks: dict[Hashable, Any] = {}
        self._random = random.Random(0)
        self._pads: list[Any] = []

    def admit(self, path: Path, config: Config) -> str | None:
        layout = self.task.layout(config)
        if layout not in self.operands:
            self.operands[layout] = self._send(self.task.operands(config), layout)
        module, operands = self.runner.load(path), self.operands[layout]
        for arguments in operands:  # what an earlier candidate has written there is no answer
            self.tensors[arguments[-1]].copyfrom(self._blank(arguments[-1]))
        for at, arguments in enumerate(operands):
            module[f"kernel{at}"](*(self.tensors[name] for name in arguments))
        answer = self.tensors[operands[-1][-1]].numpy()
        # What is not a number compares as false.
        allowed = self.task.backend.tolerance * float(np.abs(self.expected).max())
        off = float(np.abs(answer - self.expected).max())
        if not off <= allowed:
            return f"its answer is off by {off:.1e}"
        self.candidates.append((module, operands))
        return None

    def time(self, candidate: int, repeat: int) -> list[float]:
        module, operands = self.candidates[candidate]
        total = np.zeros(repeat)
        for at, arguments in enumerate(operands):
            # A GPU's caches hold most weights from one call to the next, and its clock, which
            # counts launches too, is too coarse for one of them.
            number, preparation = (_LAUNCHES, "") if self.runner.on_gpu else (1, _FLUSH)
            evaluator = module.time_evaluator(
                f"kernel{at}",
                self.runner.device,
                number=number,
                repeat=repeat,
                f_preproc=preparation,
            )
            total += evaluator(*(self.tensors[name] for name in arguments)).results
        return [float(seconds) for seconds in total]

    def move(self) -> None:
        """Have every array lie elsewhere, in an order and at distances that are random."""
        names = list(self.tensors)
        self._random.shuffle(names)
        moved = {}
        pads = []
        for name in names:
            pads.append(self.runner.empty((16 * self._random.randrange(1, 256),), "float32"))
            moved[name] = self.runner.copy(self.tensors[name])
        self.tensors, self._pads = moved, pads

    def _blank(self, name: Hashable) -> Any:
        """Return an array of the device that is not a number anywhere, of a tensor's shape."""
        shape = tuple(int(extent) for extent in self.tensors[name].shape)
        key = (shape, str(self.tensors[name].dtype))
        if key not in self._blanks:
            self._blanks[key] = self.runner.tensor(np.full(shape, np.nan, key[1]))
        return self._blanks[key]

    def _send(self, calls: list[list[NDArray[Any]]], layout: Hashable) -> list[list[Hashable]]:
        """Send the operands of a layout, but for those that are there, and return their names."""
        sent = []
        for at, arrays in enumerate(calls):
            # Kernels take a map, weights where they have some, a bias, and the map to write.
            given = ["weight", "bias"][4 - len(arrays) :] if len(arrays) > 2 else []
            names = [f"map{at}", *given, f"map{at + 1}"]
            keys: list[Hashable] = []
            for name, array in zip(names, arrays, strict=True):
                # Candidates share what they read alike, and of a GPU nothing.
                apart = layout if name == "weight" or self.runner.on_gpu else None
                key = (name, array.shape, apart)
                if key not in self.tensors:
                    self.tensors[key] = self.runner.tensor(array)
                keys.append(key)
            sent.append(keys)
        return sent


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
        evaluator = machine.time_evaluator(
            "timed", self.runner.device, number=1, repeat=repeat + 1, cooldown_interval_ms=_PAUSE
        )
        # The pauses come after the calls.
        return [float(seconds) for seconds in evaluator().results[1:]]


# Asked once, since threads that are pinned may no longer use all of them.
_default_threads = functools.cache(cpu.default_threads)
_allowed = functools.cache(cpu.allowed)

_runner: _Runner | None = None
_held: _Kernels | _Networks | None = None


def prepare() -> None:
    """Import what a job needs, and see which CPUs there are before any thread is pinned."""
    import tvm  # noqa: F401

    _default_threads()
    _allowed()


def count(address: Address) -> int:
    """Return how many devices a tracker has under a key."""
    from tvm import rpc

    summary = rpc.connect_tracker(address.host, address.port).summary()
    wanted = f"server:{address.key}"
    return sum(1 for info in summary["server_info"] if info.get("key") == wanted)


def hold(address: Address | None, threads: int | None, on_gpu: bool = False) -> int:
    """Take a device for up to ``threads``, by default what keeps it busy; return how many.

    ``on_gpu`` takes its GPU, which has one.
    """
    global _runner
    release()
    _runner = _Runner(address, threads, on_gpu)
    return _runner.threads


def release() -> None:
    """Give the device back."""
    global _runner, _held
    _runner = _held = None


def begin_kernels(task: LayerTask) -> None:
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


def move() -> None:
    """Have the candidates' arrays lie elsewhere in memory."""
    assert isinstance(_held, _Kernels)
    _held.move()


def turns(order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
    """Call candidates in turns; return the seconds of each turn's ``repeat`` counted calls."""
    assert _runner is not None and _held is not None
    _runner.use(threads)
    return [_held.time(candidate, repeat) for candidate in order]
