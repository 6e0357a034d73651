"""TVM's virtual machine over a library's code and weights."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ferplus_tvm.artifact.layout import ALIGNMENT
from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.host import cpu
from ferplus_tvm.runtime.threads import Worker, limit_spinning

Scores = NDArray[np.float32]


class Session(ABC):
    """TVM's virtual machine with its weights, touched by its own thread only.

    Attributes
    ----------
    worker
        The thread.
    """

    def __init__(self, module: Any, artifact: Artifact) -> None:
        """Start the thread and open ``module`` on it."""
        self.worker = Worker(f"ferplus-tvm {artifact.path.name}")
        self._batch_sizes = artifact.manifest.batch_sizes
        self._classes = len(artifact.manifest.labels)
        try:
            self.worker.submit(lambda: self._open(module, artifact)).result()
        except BaseException:
            self.worker.stop()
            raise

    @abstractmethod
    def _open(self, module: Any, artifact: Artifact) -> None:
        """Open the module; on the thread."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of everything; on the thread, or where it has never run."""

    @abstractmethod
    def scores(self, faces: Scores) -> Scores:
        """Return the scores (N, K) of faces (N, C, S, S); on the thread."""

    def stop(self) -> None:
        """End the thread after its calls, and let go of everything."""
        if not self.worker.alive:  # in a forked child that never called the engine
            self._release()
            return
        self.worker.submit(self._release)
        self.worker.stop()
        self.worker.join()


class CpuSession(Session):
    """The virtual machine on the CPU; its weights lie in the mapped file."""

    def __init__(self, module: Any, artifact: Artifact, threads: int) -> None:
        """Start the thread, with ``threads - 1`` helpers, and open ``module`` on it."""
        limit_spinning()
        self._threads = threads
        super().__init__(module, artifact)

    def _open(self, module: Any, artifact: Artifact) -> None:
        import tvm_ffi

        threads = self._threads
        configure = tvm_ffi.get_global_func("runtime.config_threadpool")
        # Mode -3: every pool thread may run on all the CPUs named, and none is pinned.  The first
        # call makes the pool, a thread for each CPU named; the second says where they may run.
        cpus = [str(number) for number in cpu.allowed()]
        configure(-3, threads, cpus[:threads])
        configure(-3, threads, cpus)
        self._vm = module["vm_load_executable"]()
        # CPU 0 with the pooled allocator (2), as device and as host.
        self._vm["vm_initialization"](1, 0, 2, 1, 0, 2)
        weights = np.frombuffer(artifact.weights, np.uint8)
        self._tensors = [
            tvm_ffi.from_dlpack(
                weights[tensor.offset :][: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape),
                require_alignment=ALIGNMENT,
            )
            for tensor in artifact.manifest.tensors
        ]
        self._functions = {
            batch: (
                self._vm[function.name],
                [self._tensors[index] for index in function.weights],
                aligned(stored_shape(batch, artifact.manifest)),
            )
            for batch, function in artifact.manifest.functions.items()
        }
        detector = artifact.manifest.detector
        self._detect = {
            each.size: (
                self._vm[each.name],
                [self._tensors[index] for index in each.weights],
                aligned((1, *each.size, 3), np.uint8),
            )
            for each in (detector.functions if detector else ())
        }

    def _release(self) -> None:
        del self._detect, self._functions, self._tensors, self._vm

    def scores(self, faces: Scores) -> Scores:
        """Return the scores (N, K) of faces (N, C, S, S); on the thread."""
        import tvm_ffi

        result = np.empty((len(faces), self._classes), np.float32)
        for start, count, batch in split(len(faces), self._batch_sizes):
            run, weights, buffer = self._functions[batch]
            # Generated code moves whole vectors and takes any address for an aligned one.
            buffer[:count] = stored(faces[start : start + count])
            buffer[count:] = 0
            answer = run(tvm_ffi.from_dlpack(buffer, require_alignment=ALIGNMENT), *weights)
            result[start : start + count] = np.from_dlpack(answer)[:count]
        return result

    def detect(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> Scores:
        """Return what the detector computes for a picture (H, W, 3), with black around it.

        The picture lies at the upper left of one of a compiled size.  The result is float32
        (A, 16), see `ferplus_tvm.vision.detections.decode`; on the thread.
        """
        import tvm_ffi

        run, weights, buffer = self._detect[size]
        height, width = picture.shape[:2]
        buffer[0, :height, :width] = picture
        buffer[0, :height, width:] = 0
        buffer[0, height:] = 0
        answer = run(tvm_ffi.from_dlpack(buffer, require_alignment=ALIGNMENT), *weights)
        return np.array(np.from_dlpack(answer)[0])

    def kernel_times(self, faces: Scores) -> list[tuple[str, float]]:
        """Return the seconds that each kernel of a call takes, in order; on the thread.

        The virtual machine reports every function that it calls, its own small ones too; kernels
        are those whose names are not TVM's.
        """
        import tvm_ffi

        times: list[tuple[str, float]] = []
        started = 0.0

        def instrument(_function: Any, name: str, before: bool, *_: Any) -> int:
            nonlocal started
            if before:
                started = time.perf_counter()
            elif not name.startswith("vm."):
                times.append((name, time.perf_counter() - started))
            return 0  # go on with the call

        self._vm["set_instrument"](tvm_ffi.convert(instrument))
        try:
            self.scores(faces)
        finally:
            self._vm["set_instrument"](None)
        return times


def split(faces: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Share faces out over compiled batch sizes: (start, how many, batch size), largest first.

    Only where fewer faces are left than the smallest size holds, the rest of it is blank.
    """
    start = 0
    while start < faces:
        left = faces - start
        batch = max((size for size in sizes if size <= left), default=min(sizes))
        yield start, min(batch, left), batch
        start += min(batch, left)


def stored_shape(batch: int, manifest: Manifest) -> tuple[int, ...]:
    """Return the shape in which a compiled function takes its faces: RGB with channels last."""
    channels, height, width = manifest.face_shape
    return (batch, 1, height, width) if channels == 1 else (batch, height, width, channels)


def stored(faces: Scores) -> Scores:
    """View faces (N, C, S, S) as a compiled function takes them."""
    return faces if faces.shape[1] == 1 else faces.transpose(0, 2, 3, 1)


def aligned(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return an array whose first byte is aligned as generated code expects."""
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    raw = np.empty(size + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + size].view(dtype).reshape(shape)
