"""The engine: a compiled library, opened and ready to answer."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ferplus_tvm import cpu
from ferplus_tvm.artifact import ALIGNMENT, Artifact, reason_not_to_run
from ferplus_tvm.errors import CpuFeatureError, EngineClosedError, InputError
from ferplus_tvm.manifest import Manifest, VerifyLevel
from ferplus_tvm.postprocess import Prediction, postprocess
from ferplus_tvm.preprocess import preprocess
from ferplus_tvm.runtime import library
from ferplus_tvm.runtime.threads import Call, Worker, limit_spinning

Scores = NDArray[np.float32]


class Engine:
    """A compiled library, opened and ready to answer; made by `ferplus_tvm.load`.

    It may be called from any number of threads: one call runs at a time, on a thread of the
    engine's own with ``threads - 1`` helpers, and the others wait their turn.  Handing a call over
    costs some 20 microseconds.  For independent calls in parallel open several engines with fewer
    threads each; they share the weights' memory.

    An engine works as a context manager, pickles as its path and options (worker processes open
    their own), and goes on working in a forked child.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        device: str = "cpu",
        verify: VerifyLevel = "full",
    ) -> None:
        if device != "cpu":
            raise ValueError(f"device is {device!r}: expected 'cpu'")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: expected 1 or more, or None for the default")
        self.threads = threads if threads is not None else cpu.default_threads()
        self.device = device
        self._verify: VerifyLevel = verify
        self._lock = threading.Lock()
        self._machine: _Machine | None = None
        self._artifact = Artifact(path, verify)
        self.path = self._artifact.path
        try:
            reason = reason_not_to_run(self.manifest)
            if reason:
                raise CpuFeatureError(f"{self.path} cannot run here: {reason}")
            self._start()
        except BaseException:
            self._artifact.close()
            raise
        _engines.add(self)

    @property
    def manifest(self) -> Manifest:
        """What the library says of itself."""
        return self._artifact.manifest

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed."""
        return self._machine is None

    def predict(self, source: Any, **options: Any) -> Prediction:
        """Return the emotion of one face.

        Parameters
        ----------
        source
            A picture of a face, as `ferplus_tvm.preprocess` takes it: path, bytes, file object,
            PIL image or array.
        options
            Those of `ferplus_tvm.preprocess`, such as ``channel_order="BGR"``.

        Raises
        ------
        InputError
            If the picture cannot be used, or holds more than one face.
        EngineClosedError
            If the engine was closed.
        """
        faces = preprocess(source, **options)
        if len(faces) != 1:
            raise InputError(
                f"predict takes one face, but {len(faces)} were given: call predict_batch"
            )
        return postprocess(self.scores(faces))[0]

    def predict_batch(self, sources: Any, **options: Any) -> list[Prediction]:
        """Return the emotions of any number of faces, in order.

        Parameters
        ----------
        sources
            A list of what `predict` takes, in any mixture, or an array of faces.
        options
            Those of `ferplus_tvm.preprocess`.

        Raises
        ------
        InputError
            If one of them cannot be used (the message says which).
        EngineClosedError
            If the engine was closed.
        """
        return postprocess(self.scores(preprocess(sources, **options)))

    def scores(self, x: ArrayLike) -> Scores:
        """Return the raw scores of faces, without any work on pictures.

        Parameters
        ----------
        x
            Real numbers of shape (N, 1, 64, 64), grey in 0..255; any N, stride, order, alignment
            and byte order.

        Returns
        -------
        numpy.ndarray
            float32 (N, 8), in the order of `ferplus_tvm.EMOTIONS`.  N faces are split over the
            compiled batch sizes.

        Raises
        ------
        InputError
            If the shape or type is another, or a value is not finite.
        EngineClosedError
            If the engine was closed.
        """
        faces = np.asarray(x)
        if faces.ndim != 4 or faces.shape[1:] != (1, 64, 64):
            raise InputError(
                f"scores takes an array of shape (N, 1, 64, 64), but got {faces.shape}: use "
                "predict or predict_batch for pictures of other shapes"
            )
        if faces.dtype.kind not in "fiub":
            raise InputError(f"scores takes real numbers, but got an array of {faces.dtype}")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite: caught below
            faces = faces.astype(np.float32, copy=False)
        if not np.isfinite(faces).all():
            raise InputError("scores takes finite pixels in 0..255, but some are NaN or infinite")
        return self._submit(lambda machine: machine.scores(faces)).result()

    def close(self) -> None:
        """Let go of the library and its memory, after the calls under way; again is harmless."""
        with self._lock:
            machine, self._machine = self._machine, None
        if machine is not None:
            machine.stop()
            self._artifact.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Engine], tuple[Any, ...]]:
        return _open, (str(self.path), self.threads, self.device, self._verify)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"threads={self.threads}"
        return f"<Engine {str(self.path)!r} {state}>"

    def _submit(self, function: Callable[[_Machine], Scores]) -> Call[Scores]:
        with self._lock:
            machine = self._machine
            if machine is None:
                raise EngineClosedError(f"the engine of {self.path} is closed: load it again")
            return machine.worker.submit(lambda: function(machine))

    def _start(self) -> None:
        module = library.open_module(self._artifact)
        self._machine = _Machine(module, self._artifact, self.threads)
        self._finalizer = weakref.finalize(self, self._machine.worker.stop)

    def _after_fork(self) -> None:
        """Make a new thread in a forked child, where only the forking thread lives on."""
        self._lock = threading.Lock()
        if self._machine is not None:
            self._finalizer.detach()
            self._start()


class _Machine:
    """TVM's virtual machine with its weights, touched by its own thread only."""

    def __init__(self, module: Any, artifact: Artifact, threads: int) -> None:
        limit_spinning()
        self.worker = Worker(f"ferplus-tvm {artifact.path.name}")
        self._batch_sizes = artifact.manifest.batch_sizes
        self.worker.submit(lambda: self._open(module, artifact, threads)).result()

    def _open(self, module: Any, artifact: Artifact, threads: int) -> None:
        import tvm_ffi

        configure = tvm_ffi.get_global_func("runtime.config_threadpool")
        # Mode -3: every pool thread may run on all the CPUs named, and none is pinned.
        configure(-3, threads, [str(number) for number in cpu.allowed()])
        self._vm = module["vm_load_executable"]()
        # CPU 0 with the pooled allocator (2), as device and as host.
        self._vm["vm_initialization"](1, 0, 2, 1, 0, 2)
        weights = np.frombuffer(artifact.weights, np.uint8)
        self._tensors = [
            tvm_ffi.from_dlpack(
                weights[piece.offset :][: 4 * int(np.prod(piece.shape))]
                .view(piece.dtype)
                .reshape(piece.shape),
                require_alignment=ALIGNMENT,
            )
            for piece in artifact.manifest.pieces
        ]
        self._functions = {
            batch: (
                self._vm[function.name],
                [self._tensors[index] for index in function.weights],
                _aligned((batch, 1, 64, 64)),
            )
            for batch, function in artifact.manifest.functions.items()
        }

    def stop(self) -> None:
        """End the thread after its calls, and let go of everything."""
        self.worker.submit(self._release)
        self.worker.stop()
        self.worker.join()

    def _release(self) -> None:
        del self._functions, self._tensors, self._vm

    def scores(self, faces: Scores) -> Scores:
        import tvm_ffi

        result = np.empty((len(faces), 8), np.float32)
        for start, count, batch in _split(len(faces), self._batch_sizes):
            run, weights, buffer = self._functions[batch]
            # Generated code moves whole vectors and takes any address for an aligned one.
            buffer[:count] = faces[start : start + count]
            buffer[count:] = 0
            answer = run(tvm_ffi.from_dlpack(buffer, require_alignment=ALIGNMENT), *weights)
            result[start : start + count] = np.from_dlpack(answer)[:count]
        return result


def _split(faces: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Share faces out over compiled batch sizes: (start, how many, batch size), largest first.

    Only where fewer faces are left than the smallest size holds, the rest of it is blank.
    """
    start = 0
    while start < faces:
        left = faces - start
        batch = max((size for size in sizes if size <= left), default=min(sizes))
        yield start, min(batch, left), batch
        start += min(batch, left)


def _aligned(shape: tuple[int, ...]) -> Scores:
    """Return a float32 array whose first byte is aligned as generated code expects."""
    size = 4 * int(np.prod(shape))
    raw = np.empty(size + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + size].view(np.float32).reshape(shape)


def _open(path: str, threads: int, device: str, verify: VerifyLevel) -> Engine:
    return Engine(path, threads=threads, device=device, verify=verify)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _restart_after_fork() -> None:
    for engine in list(_engines):
        engine._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_restart_after_fork)
