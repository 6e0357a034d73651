"""A checked library, opened by the dynamic loader, and the thread that its code runs on."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ferplus_tvm.artifact.fit import refusal
from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.artifact.manifest import ChecksumLevel, Manifest
from ferplus_tvm.errors import EngineClosedError, GpuError
from ferplus_tvm.host import gpu
from ferplus_tvm.runtime import lifetime, loader
from ferplus_tvm.runtime.session_cpu import CpuSession, Session
from ferplus_tvm.runtime.session_cuda import CudaSession
from ferplus_tvm.runtime.threads import Call
from ferplus_tvm.runtime.without_torch import import_tvm_ffi

_log = logging.getLogger(__name__)


class OpenedLibrary:
    """A library that was checked and opened, and answers until it is closed.

    Attributes
    ----------
    path
        Its absolute path.
    manifest
        What it says of itself, for the target whose code is used.
    gpu
        The GPU that it runs on, or None for the CPU.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int,
        device: gpu.Device | None,
        checksum: ChecksumLevel,
        target: str | None,
    ) -> None:
        """Check the file, open it, and start its thread.

        Parameters
        ----------
        path, checksum, target
            Those of `ferplus_tvm.load`.
        threads
            The CPU threads that a call uses.
        device
            The GPU to run on, or None for the CPU.
        """
        self.gpu = device
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Session | None = None
        with lifetime.opening():
            self._open(path, checksum, target)

    def _open(
        self, path: str | os.PathLike[str], checksum: ChecksumLevel, target: str | None
    ) -> None:
        start = time.perf_counter()
        device = self.gpu
        self._artifact = Artifact(path, checksum, import_tvm_ffi, target, device)
        self.path = self._artifact.path
        self.manifest: Manifest = self._artifact.manifest
        try:
            several = len(self._artifact.manifests) > 1
            what = f"{self.path} for {self.manifest.target}" if several else self.path
            self._expect_kind(what)
            problem = refusal(self.manifest, device)
            if problem:
                raise type(problem)(f"{what} cannot run here: {problem}")
            self._module = loader.open_module(self._artifact)
            self._start()
        except BaseException:
            self._artifact.close()
            raise
        lifetime.track(self)
        _log.info(
            "opened %s for %s on %s in %.0f ms",
            self.path,
            self.manifest.target,
            "cpu" if device is None else f"cuda:{device.index}",
            1e3 * (time.perf_counter() - start),
        )

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._session is None

    @property
    def session(self) -> Session:
        """The session that runs its code.

        Raises
        ------
        EngineClosedError
            If it was closed.
        """
        with self._lock:
            session = self._session
        if session is None:
            raise self._closed()
        return session

    def submit(self, function: Callable[[Any], Any]) -> Call[Any]:
        """Have a function of the session run on the thread.

        Raises
        ------
        EngineClosedError
            If it was closed.
        GpuError
            If this is a forked process, and the parent's engine is on a GPU.
        """
        with self._lock:
            if self._session is not None and not self._session.worker.alive:
                # In a forked child, where only the forking thread lives on.
                if self.gpu is not None:
                    raise GpuError(
                        f"the engine of {self.path} is on a GPU, which a forked process cannot go "
                        "on with: start processes by spawn, or load it in each of them"
                    )
                self._finalizer.detach()
                self._start()
            session = self._session
            if session is not None:
                return session.worker.submit(lambda: function(session))
        raise self._closed()

    def close(self) -> None:
        """Let go of the library and its memory, after the calls under way; again is harmless."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.stop()
            del session
            self._artifact.close()
            _log.debug("closed %s", self.path)

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child, where its holder may be gone."""
        self._lock = threading.Lock()

    def _closed(self) -> EngineClosedError:
        lifetime.wait_at_the_end()
        return EngineClosedError(f"the engine of {self.path} is closed: load it again")

    def _expect_kind(self, what: object) -> None:
        """See that the library's code is for a CPU, or for a GPU, as the device is."""
        arch = self.manifest.gpu_arch
        if arch and self.gpu is None:
            raise GpuError(
                f"{what} holds code for a GPU ({arch}) and none for a CPU: load it with "
                "device='cuda:0', or compile it for a CPU"
            )
        if self.gpu is not None and not arch:
            raise GpuError(
                f"{what} holds code for a CPU ({self.manifest.target}) and none for a GPU: load it "
                f"with device='cpu', or compile it for the GPU ({self.gpu.arch}) with --target"
            )

    def _start(self) -> None:
        self._session = (
            CpuSession(self._module, self._artifact, self._threads)
            if self.gpu is None
            else CudaSession(self._module, self._artifact, self.gpu)
        )
        self._finalizer = weakref.finalize(self, self._session.worker.stop)
        self._finalizer.atexit = False  # see `lifetime`
