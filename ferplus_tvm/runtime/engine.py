"""The engine: a compiled library, opened and ready to answer."""

from __future__ import annotations

import atexit
import logging
import operator
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from ferplus_tvm.artifact.library_file import Artifact, refusal
from ferplus_tvm.artifact.manifest import ChecksumLevel, Manifest
from ferplus_tvm.errors import EngineClosedError, GpuError, InputError, one_line
from ferplus_tvm.faces.postprocess import Prediction, postprocess
from ferplus_tvm.faces.preprocess import preprocess, preprocess_each
from ferplus_tvm.host import cpu
from ferplus_tvm.runtime import loader
from ferplus_tvm.runtime.session_cpu import CpuMachine, Machine, Scores
from ferplus_tvm.runtime.session_cuda import CudaMachine, device_of
from ferplus_tvm.runtime.threads import Call, join_ending

_log = logging.getLogger(__name__)


class Engine:
    """A compiled library, opened and ready to answer; made by `ferplus_tvm.load`.

    It may be called from any number of threads: one call runs at a time, on a thread of the
    engine's own with ``threads - 1`` helpers, and the others wait their turn.  Handing a call over
    costs some 20 microseconds.  For independent calls in parallel open several engines with fewer
    threads each; they share the weights' memory.

    An engine works as a context manager, pickles as its path and options (worker processes open
    their own), and goes on working in a forked child, which starts a thread of its own at its
    first call.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        device: str = "cpu",
        checksum: ChecksumLevel = "full",
        target: str | None = None,
    ) -> None:
        find_gpu = device_of(device)
        if threads is not None and operator.index(threads) < 1:
            raise ValueError(f"threads is {threads}: expected 1 or more, or None for the default")
        self._threads = threads
        self.threads = (
            min(operator.index(threads), len(cpu.allowed()))
            if threads is not None
            else cpu.default_threads()
        )
        if threads is not None and self.threads < threads:
            _log.warning(
                "threads=%d, but this process may use %d CPUs: %d are used; change its affinity "
                "for more",
                threads,
                self.threads,
                self.threads,
            )
        start = time.perf_counter()
        self.device = device
        self._checksum: ChecksumLevel = checksum
        self._target = target
        self._lock = threading.Lock()
        self._machine: Machine | None = None
        self._gpu = find_gpu() if find_gpu is not None else None
        self._artifact = Artifact(path, checksum, loader.import_tvm_ffi, target, self._gpu)
        self.path = self._artifact.path
        try:
            several = len(self._artifact.manifests) > 1
            what = f"{self.path} for {self.manifest.target}" if several else self.path
            self._expect_kind(what)
            problem = refusal(self.manifest, self._gpu)
            if problem:
                raise type(problem)(f"{what} cannot run here: {problem}")
            self._module = loader.open_module(self._artifact)
            self._start()
        except BaseException:
            self._artifact.close()
            raise
        _engines.add(self)
        _log.info(
            "opened %s for %s on %s in %.0f ms",
            self.path,
            self.manifest.target,
            device,
            1e3 * (time.perf_counter() - start),
        )

    def _expect_kind(self, what: object) -> None:
        """See that the library's code is for a CPU, or for a GPU, as the device is."""
        arch = self.manifest.gpu_arch
        if arch and self._gpu is None:
            raise GpuError(
                f"{what} holds code for a GPU ({arch}) and none for a CPU: load it with "
                "device='cuda:0', or compile it for a CPU"
            )
        if self._gpu is not None and not arch:
            raise GpuError(
                f"{what} holds code for a CPU ({self.manifest.target}) and none for a GPU: load it "
                f"with device='cpu', or compile it for the GPU ({self._gpu.arch}) with --target"
            )

    @property
    def manifest(self) -> Manifest:
        """What the library says of itself, for the target whose code is used."""
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
            Those of `ferplus_tvm.faces.preprocess`, such as ``channel_order="BGR"``.

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

    @overload
    def predict_batch(
        self, sources: Any, *, on_error: Literal["raise"] = "raise", **options: Any
    ) -> list[Prediction]: ...

    @overload
    def predict_batch(
        self, sources: Any, *, on_error: Literal["skip"], **options: Any
    ) -> list[Prediction | None]: ...

    def predict_batch(
        self, sources: Any, *, on_error: Literal["raise", "skip"] = "raise", **options: Any
    ) -> list[Prediction] | list[Prediction | None]:
        """Return the emotions of any number of faces, in order.

        Parameters
        ----------
        sources
            A list of what `predict` takes, in any mixture, or an array of faces.
        on_error
            ``"raise"`` raises for the first picture that cannot be used; ``"skip"`` puts None in
            its place, logs why as a warning, and answers the others.
        options
            Those of `ferplus_tvm.faces.preprocess`.

        Raises
        ------
        InputError
            If one of them cannot be used (the message says which).
        EngineClosedError
            If the engine was closed.
        ValueError
            For an option that does not exist.
        """
        if on_error == "raise":
            return postprocess(self.scores(preprocess(sources, **options)))
        if on_error != "skip":
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' or 'skip'")
        parts = preprocess_each(sources, **options)
        faces = [part for part in parts if not isinstance(part, InputError)]
        none = np.empty((0, 1, 64, 64), np.float32)
        predictions = iter(postprocess(self.scores(np.concatenate([none, *faces]))))
        answers: list[Prediction | None] = []
        for part in parts:
            if isinstance(part, InputError):
                _log.warning("skipped: %s", part)
                answers.append(None)
            else:
                answers += [next(predictions) for _ in part]
        return answers

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
        try:
            faces = np.asarray(x)
        except Exception as error:  # ragged lists, tensors on a GPU, whatever __array__ raises
            raise InputError(
                f"scores takes an array of shape (N, 1, 64, 64), but the {type(x).__name__} given "
                f"cannot be read as an array ({one_line(error).split('. ')[0]}): convert it first"
            ) from error
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
        scores: Scores = self._submit(lambda machine: machine.scores(faces)).result()
        return scores

    def scores_on_gpu(self, x: Any) -> Any:
        """Return the raw scores of faces that are on the engine's GPU, and leave them there.

        Parameters
        ----------
        x
            A DLPack tensor on the same GPU, such as PyTorch's: contiguous float32 (N, 1, 64, 64),
            grey in 0..255; any N.  It is read in place.  Its values are not checked: one that is
            not finite makes scores of its face that mean nothing.

        Returns
        -------
        tvm_ffi.Tensor
            float32 (N, 8) on the GPU, computed when this returns; a DLPack tensor, which
            ``torch.from_dlpack`` takes.  N that is a compiled batch size needs no copy.  Its memory
            serves later calls once it is dropped: have what reads it on another stream end before.

        Raises
        ------
        InputError
            If it is on another device, or of another shape or type.
        GpuError
            If the engine is not on a GPU, or the GPU fails.
        EngineClosedError
            If the engine was closed.
        """
        if self._gpu is None:
            raise GpuError(
                "scores_on_gpu is for an engine on a GPU, and this one is on the CPU: load a "
                "library for a GPU with device='cuda:0', or give scores an array"
            )
        if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
            raise InputError(
                f"scores_on_gpu takes a DLPack tensor, but got {type(x).__name__}: give scores an "
                "array"
            )
        with self._lock:
            machine = self._machine
        if not isinstance(machine, CudaMachine):
            raise EngineClosedError(f"the engine of {self.path} is closed: load it again")
        tensor = machine.take(x)
        return self._submit(lambda machine: machine.scores_on_gpu(tensor)).result()

    def close(self) -> None:
        """Let go of the library and its memory, after the calls under way; again is harmless."""
        with self._lock:
            machine, self._machine = self._machine, None
        if machine is not None:
            machine.stop()
            del machine
            self._artifact.close()
            _log.debug("closed %s", self.path)

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
        return _open, (str(self.path), self._threads, self.device, self._checksum, self._target)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"threads={self.threads}"
        return f"<Engine {str(self.path)!r} {state}>"

    def _submit(self, function: Callable[[Any], Any]) -> Call[Any]:
        with self._lock:
            if self._machine is not None and not self._machine.worker.alive:
                # In a forked child, where only the forking thread lives on.
                if self._gpu is not None:
                    raise GpuError(
                        f"the engine of {self.path} is on a GPU, which a forked process cannot go "
                        "on with: start processes by spawn, or load it in each of them"
                    )
                self._finalizer.detach()
                self._start()
            machine = self._machine
            if machine is None:
                raise EngineClosedError(f"the engine of {self.path} is closed: load it again")
            return machine.worker.submit(lambda: function(machine))

    def _start(self) -> None:
        self._machine = (
            CpuMachine(self._module, self._artifact, self.threads)
            if self._gpu is None
            else CudaMachine(self._module, self._artifact, self._gpu)
        )
        self._finalizer = weakref.finalize(self, self._machine.worker.stop)
        self._finalizer.atexit = False  # see _close_all


def _open(
    path: str, threads: int | None, device: str, checksum: ChecksumLevel, target: str | None
) -> Engine:
    return Engine(path, threads=threads, device=device, checksum=checksum, target=target)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """Close what is open when the interpreter ends, and see the threads end.

    Python kills daemon threads then, and one that is killed on its way back from TVM's C++ takes
    the process down with it.
    """
    for engine in list(_engines):
        engine.close()
    join_ending()


atexit.register(_close_all)


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread that is gone there may have held them."""
    loader.renew_lock()
    for engine in list(_engines):
        engine._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
