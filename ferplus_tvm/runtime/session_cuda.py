"""TVM's virtual machine on an NVIDIA GPU.

Weights are copied to the GPU once, when the library is opened, and every batch size is run once,
which records the CUDA graph of its kernels; later calls launch that.

While TVM records a graph, CUDA refuses what other threads of the process ask of its default stream,
or of its memory.  Engines therefore take turns on a process's GPUs.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.errors import GpuError, InputError, one_line
from ferplus_tvm.host import gpu
from ferplus_tvm.runtime.session_cpu import Scores, Session, stored, stored_shape

_CPU, _CUDA, _PINNED = 1, 2, 3  # DLPack's device types
_POOLED = 2  # TVM's allocator
_LEGACY_STREAM = 1  # DLPack's name of CUDA's default stream, on which the kernels run

_turn = threading.Lock()
_sessions: weakref.WeakSet[CudaSession] = weakref.WeakSet()


class CudaSession(Session):
    """The virtual machine on a GPU; all that is said of `Session` holds."""

    def __init__(self, module: Any, artifact: Artifact, device: gpu.Device) -> None:
        """Start the thread, open ``module`` on it, and copy the weights."""
        self._gpu = device
        self._face = stored_shape(1, artifact.manifest)[1:]
        self._held: list[Any] = []
        super().__init__(module, artifact)
        _sessions.add(self)

    def _open(self, module: Any, artifact: Artifact) -> None:
        import tvm_ffi

        find = tvm_ffi.get_global_func
        self._allocate = find("runtime.TVMTensorAllocWithScope")
        self._copy = find("runtime.TVMTensorCopyFromTo")
        self._view = find("runtime.TVMTensorCreateView")
        self._synchronize = find("runtime.Device_StreamSync")
        self._device = tvm_ffi.device(f"cuda:{self._gpu.index}")
        try:
            with _turn:
                self._prepare(module, artifact)
        except RuntimeError as error:
            self._fail(error)

    def _prepare(self, module: Any, artifact: Artifact) -> None:
        self._vm = module["vm_load_executable"]()
        self._vm["vm_initialization"](_CUDA, self._gpu.index, _POOLED, _CPU, 0, _POOLED)
        self._tensors = self._copy_weights(artifact)
        self._functions = {
            batch: (
                self._vm[function.name],
                [self._tensors[index] for index in function.weights],
                self._empty((batch, *self._face)),
            )
            for batch, function in artifact.manifest.functions.items()
        }
        largest = max(self._batch_sizes)
        self._faces = self._pinned((largest, *self._face))
        self._scores = self._pinned((largest, self._classes))
        self._held = [self._functions, self._tensors, self._faces, self._scores, self._vm]
        for run, weights, on_gpu in self._functions.values():
            run(on_gpu, *weights)
        self._synchronize(self._device, 0)

    def _copy_weights(self, artifact: Artifact) -> dict[int, Any]:
        import tvm_ffi

        used = sorted({i for f in artifact.manifest.functions.values() for i in f.weights})
        find = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        weights = np.frombuffer(artifact.weights, np.uint8)
        tensors = {}
        for index in used:
            tensor = artifact.manifest.tensors[index]
            tensors[index] = self._empty(tensor.shape, tensor.dtype)
            content = weights[tensor.offset :][: tensor.nbytes]
            find(tensors[index], ctypes.c_void_p(content.ctypes.data), tensor.nbytes)
        return tensors

    def _release(self) -> None:
        import tvm_ffi

        with _turn:
            healthy = True
            try:
                self._synchronize(self._device, 0)
            except RuntimeError:
                healthy = False  # and everything fails that follows
                self.abandon()
            self._held.clear()
            del self._functions, self._tensors, self._faces, self._scores, self._vm
            if healthy:  # TVM keeps what it has had for later engines
                tvm_ffi.get_global_func("vm.builtin.memory_manager.clear")()

    def abandon(self) -> None:
        """Never give the GPU's memory back: where that fails, TVM ends the process."""
        for each in self._held:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))

    def scores(self, faces: Scores) -> Scores:
        """Return the scores (N, K) of faces (N, C, S, S); on the thread."""
        result = np.empty((len(faces), self._classes), np.float32)
        given, given_memory = self._faces
        taken, taken_memory = self._scores
        with self._running():
            for start, count, batch in padded_split(len(faces), self._batch_sizes):
                run, weights, on_gpu = self._functions[batch]
                given_memory[:count] = stored(faces[start : start + count])
                given_memory[count:batch] = 0
                self._copy(self._part(given, 0, (batch, *self._face)), on_gpu)
                self._copy(run(on_gpu, *weights), self._part(taken, 0, (batch, self._classes)))
                self._synchronize(self._device, 0)
                result[start : start + count] = taken_memory[:count]
        return result

    def scores_on_gpu(self, faces: Any) -> Any:
        """Return the scores of a tensor that `take` has given, as another one; on the thread."""
        x, count = faces, int(faces.shape[0])
        with self._running():
            if count in self._functions:
                run, weights, _ = self._functions[count]
                scores = run(x, *weights)
            else:
                scores = self._empty((count, self._classes))
                for start, size, batch in padded_split(count, self._batch_sizes):
                    run, weights, on_gpu = self._functions[batch]
                    # Kernels take no tensor that begins within another one's memory.
                    shape = (size, *self._face)
                    self._copy(self._part(x, start, shape), self._part(on_gpu, 0, shape))
                    answer = self._part(run(on_gpu, *weights), 0, (size, self._classes))
                    self._copy(answer, self._part(scores, start, (size, self._classes)))
            self._synchronize(self._device, 0)
        return scores

    @contextmanager
    def _running(self) -> Iterator[None]:
        with _turn:
            try:
                yield
            except RuntimeError as error:
                self._fail(error)

    def take(self, faces: Any) -> Any:
        """Take a DLPack tensor over, and see that it is one to compute with in place.

        On the caller's thread, whose stream the tensor's work is on.
        """
        import tvm_ffi

        if not (hasattr(faces, "__dlpack__") and hasattr(faces, "__dlpack_device__")):
            raise InputError(
                f"scores_on_gpu takes a DLPack tensor, but got {type(faces).__name__}: give scores "
                "an array"
            )
        here = (_CUDA, self._gpu.index)
        try:
            place = tuple(int(part) for part in faces.__dlpack_device__())
        except Exception as error:  # frameworks raise what they like
            raise _unusable(error) from error
        if place != here:
            raise InputError(
                f"scores_on_gpu takes a tensor on cuda:{self._gpu.index}, but it is on the DLPack "
                f"device {place}: move it there, or give scores an array"
            )
        try:
            x = tvm_ffi.from_dlpack(_OnDefaultStream(faces))
        except Exception as error:
            raise _unusable(error) from error
        shape, dtype = tuple(int(extent) for extent in x.shape), str(x.dtype)
        if shape[1:] != self._face or dtype != "float32" or not x.is_contiguous():
            wanted = ", ".join(map(str, self._face))
            order = "" if x.is_contiguous() else ", not contiguous"
            step = "convert it first"
            if self._face[-1] == 3:
                step = "RGB has its channels last here, as x.permute(0, 2, 3, 1).contiguous() gives"
            raise InputError(
                f"scores_on_gpu takes a contiguous float32 tensor of shape (N, {wanted}), but got "
                f"{dtype} {shape}{order}: {step}"
            )
        return x

    def _empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        import tvm_ffi

        return self._allocate(tvm_ffi.Shape(shape), tvm_ffi.dtype(dtype), self._device, None)

    def _pinned(self, shape: tuple[int, ...]) -> tuple[Any, NDArray[np.float32]]:
        """Return host memory that the GPU copies from and to directly, and numpy's view of it."""
        import tvm_ffi

        device = tvm_ffi.core.Device(_PINNED, self._gpu.index)
        tensor = self._allocate(tvm_ffi.Shape(shape), tvm_ffi.dtype("float32"), device, None)
        size = int(np.prod(shape))
        memory = (ctypes.c_float * size).from_address(tensor.data_ptr())
        return tensor, np.ctypeslib.as_array(memory).reshape(shape)

    def _part(self, tensor: Any, start: int, shape: tuple[int, ...]) -> Any:
        """Return rows of a tensor, without a copy."""
        import tvm_ffi

        skipped = 4 * start * int(np.prod(shape[1:]))
        return self._view(tensor, tvm_ffi.Shape(shape), tvm_ffi.dtype("float32"), skipped)

    def _fail(self, error: RuntimeError) -> Never:
        said = one_line(error)
        name = f"cuda:{self._gpu.index} ({self._gpu.name})"
        if "out of memory" in said.lower() or "MemoryAllocation" in said or "OUT_OF_MEMORY" in said:
            raise GpuError(
                f"the memory of {name} is full: close what else uses it (nvidia-smi lists it), or "
                "compile for smaller batches"
            ) from error
        raise GpuError(f"{name} failed ({said}): see what nvidia-smi says of it") from error


def _unusable(error: Exception) -> InputError:
    return InputError(
        f"scores_on_gpu cannot read the tensor ({one_line(error)}): give one without gradients "
        "(detach it), of ordinary layout, with its GPU as the current one"
    )


if hasattr(os, "register_at_fork"):

    def _abandon_all() -> None:
        """Keep what a forked child holds: it cannot talk to the GPU."""
        global _turn
        _turn = threading.Lock()
        for session in list(_sessions):
            session.abandon()

    os.register_at_fork(after_in_child=_abandon_all)


class _OnDefaultStream:
    """A DLPack tensor whose work is done before CUDA's default stream goes on."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(stream=_LEGACY_STREAM)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def padded_split(faces: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Share faces out over compiled batch sizes: (start, how many, batch size).

    Whole largest batches first; what is left goes into one batch that holds it, since a GPU takes
    little longer for a batch than for a part of it.
    """
    start = 0
    while start < faces:
        left = faces - start
        batch = min((size for size in sizes if size >= left), default=max(sizes))
        yield start, min(batch, left), batch
        start += min(batch, left)


def device_of(name: str) -> Callable[[], gpu.Device] | None:
    """Return what finds the device of a name: None for ``cpu``, or that of ``cuda:1``.

    Raises
    ------
    ValueError
        For another name.
    """
    kind, colon, number = name.partition(":")
    if name == "cpu":
        return None
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device is {name!r}: expected 'cpu', 'cuda', or a GPU such as 'cuda:1'")
    return lambda: gpu.device(int(number or 0))
