"""The process that measures: what `tuning.device` calls in its child.

It holds one device at a time, and on it the candidates of one layer or whole networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.tuning.address import Address
from ferplus_tvm.tuning.candidates import KernelCandidates, NetworkCandidates
from ferplus_tvm.tuning.device_session import DeviceSession, allowed, default_threads
from ferplus_tvm.tuning.task import LayerTask


@dataclass
class _State:
    """What this process holds."""

    session: DeviceSession | None = None
    kernels: KernelCandidates | None = None
    networks: NetworkCandidates | None = None


_state = _State()


def prepare() -> None:
    """Import what a job needs, and see which CPUs there are before any thread is pinned."""
    import tvm  # noqa: F401

    default_threads()
    allowed()


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
    release()
    _state.session = DeviceSession(address, threads, on_gpu)
    return _state.session.threads


def release() -> None:
    """Give the device back."""
    _state.session = _state.kernels = _state.networks = None


def begin_kernels(task: LayerTask) -> None:
    """Take in candidates for a layer from now on."""
    _state.kernels, _state.networks = KernelCandidates(_session(), task), None


def admit_kernel(path: Path, config: Config) -> str | None:
    """Take in a candidate, or return why it is not one: its answer is wrong."""
    return _kernels().admit(path, config)


def begin_networks(faces: tuple[int, ...]) -> None:
    """Take in networks from now on, which take faces of a shape."""
    _state.kernels, _state.networks = None, NetworkCandidates(_session(), faces)


def admit_network(path: Path, function: str, weights: dict[str, Path]) -> NDArray[np.float32]:
    """Take in a network, and return its scores for the faces that all of them get."""
    if _state.networks is None:
        raise RuntimeError("begin_networks comes before admit_network")
    return _state.networks.admit(path, function, weights)


def move() -> None:
    """Have the candidates' arrays lie elsewhere in memory."""
    _kernels().move()


def turns(order: Sequence[int], threads: int, repeat: int) -> list[list[float]]:
    """Call candidates in turns; return the seconds of each turn's ``repeat`` counted calls."""
    _session().use(threads)
    candidates = _state.networks or _kernels()
    return [candidates.time(candidate, repeat) for candidate in order]


def _session() -> DeviceSession:
    if _state.session is None:
        raise RuntimeError("hold comes before everything else")
    return _state.session


def _kernels() -> KernelCandidates:
    if _state.kernels is None:
        raise RuntimeError("begin_kernels comes before its candidates")
    return _state.kernels
