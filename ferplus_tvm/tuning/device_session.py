"""A device while it is held: what loads code and tensors onto it, and how many threads it uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ferplus_tvm.host import cpu
from ferplus_tvm.tuning.address import Address

_SESSION = 3600  # seconds to have a device at most, beyond which its server ends the session

# Asked once, since threads that are pinned may no longer use all of them.
default_threads = functools.cache(cpu.default_threads)
allowed = functools.cache(cpu.allowed)


class DeviceSession:
    """A device while it is held: this machine, or one behind an RPC session."""

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
            self.threads = min(threads or default_threads(), len(allowed()))
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
        names = [str(number) for number in allowed()[:threads]]
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
