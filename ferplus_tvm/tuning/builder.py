"""Builds candidates into shared libraries, in worker processes of TVM's own pool.

Workers live as long as the tuning, so that they import TVM once and nothing of its intrinsics.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import CompileError, last_line
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.cpu.tensorir import pass_context
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.toolchain.cuda_compiler import kernels_as_source
from ferplus_tvm.toolchain.link import export_library
from ferplus_tvm.tuning.task import LayerTask

_TIMEOUT = 300  # for a whole network; a candidate takes less than one second


class Builder:
    """Builds for one target into a folder."""

    def __init__(self, target: ResolvedTarget, folder: Path, workers: int) -> None:
        from tvm.support.popen_pool import PopenPoolExecutor

        self._target = target
        self._folder = folder
        self._workers = workers
        self._count = 0
        self._lock = threading.Lock()
        self._jobs: list[Future[Any]] = []
        self._pool = PopenPoolExecutor(max_workers=workers, timeout=_TIMEOUT)

    def prepare(self) -> None:
        """Start the workers, which import TVM."""
        self.call(_nothing, [()] * self._workers)

    def call(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Have workers call a function at the same time, and return its answers in order.

        Raises
        ------
        CompileError
            If one of the calls fails, or its worker dies.
        """
        jobs = [self._submit(function, *each) for each in arguments]
        concurrent.futures.wait(jobs)
        try:
            return [job.result() for job in jobs]
        except (ChildProcessError, TimeoutError) as error:
            raise CompileError(
                "a process that builds for the tuning ended early: see that there is memory for "
                "it, and run the same command again, which goes on where this one ended"
            ) from error
        except Exception as error:  # the worker's, as text
            raise CompileError(
                f"a process that builds for the tuning failed ({last_line(error)}): see that there "
                "is room for temporary files, and run the same command again"
            ) from error

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._pool.submit(function, *arguments)
        with self._lock:
            self._jobs = [job for job in self._jobs if not job.done()] + [future]
        return future

    def build(self, task: LayerTask, configs: Sequence[Config]) -> list[Path | BaseException]:
        """Return the library of each configuration, or why there is none.

        It is a ``ChildProcessError`` where the worker died, which may have had another reason.
        """
        jobs = []
        for config in configs:
            with self._lock:
                self._count += 1
                path = self._folder / f"candidate{self._count}.so"
            jobs.append((path, self._submit(_build, task, config, self._target, path)))
        return [job.exception() or path for path, job in jobs]

    def close(self) -> None:
        """End the workers, after the jobs under way."""
        # The pool takes a worker that ends for one that is to be started again.
        concurrent.futures.wait(self._jobs)
        self._pool.shutdown(wait=True)


def _nothing() -> None:
    return None


def _build(task: LayerTask, config: Config, target: ResolvedTarget, path: Path) -> None:
    import tvm

    functions: dict[str, Any] = {}
    for at, function in enumerate(task.define(config)):
        name = f"kernel{at}"
        functions[name] = function.with_attr("global_symbol", name)
    with pass_context(), kernels_as_source():
        executable = tvm.compile(tvm.IRModule(functions), target=target.tvm_target())
    export_library(executable, target, path)
