"""The engine: a compiled library, opened and ready to answer."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Self, cast

from numpy.typing import ArrayLike

from ferplus_tvm.artifact.manifest import ChecksumLevel, Manifest
from ferplus_tvm.errors import GpuError
from ferplus_tvm.runtime.inputs import as_faces
from ferplus_tvm.runtime.opened import OpenedLibrary
from ferplus_tvm.runtime.photos import PhotoMethods
from ferplus_tvm.runtime.session_cpu import Scores
from ferplus_tvm.runtime.session_cuda import CudaSession, device_of
from ferplus_tvm.runtime.threads import threads_to_use

_log = logging.getLogger(__name__)


class Engine(PhotoMethods):
    """A compiled library, opened and ready to answer; made by `ferplus_tvm.load`.

    It may be called from any number of threads: one call runs at a time, on a thread of the
    engine's own with ``threads - 1`` helpers, and the others wait their turn.  Handing a call over
    costs some 20 microseconds.  For independent calls in parallel open several engines with fewer
    threads each; they share the weights' memory.

    An engine works as a context manager, pickles as its path and options (worker processes open
    their own), and goes on working in a forked child, which starts a thread of its own at its
    first call.

    Parameters
    ----------
    path, threads, device, checksum, target
        Those of `ferplus_tvm.load`.

    Attributes
    ----------
    path
        The library, as an absolute path.
    threads
        The CPU threads that a call uses.
    device
        The device that was asked for: ``cpu``, ``cuda`` or ``cuda:1``.
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
        self._threads = threads
        self.threads = threads_to_use(threads)
        self.device = device
        self._checksum: ChecksumLevel = checksum
        self._target = target
        gpu = find_gpu() if find_gpu is not None else None
        self._library = OpenedLibrary(path, self.threads, gpu, checksum, target)
        self.path = self._library.path
        self._channels, self._size, _ = self.manifest.face_shape

    @property
    def manifest(self) -> Manifest:
        """What the library says of itself, for the target whose code is used."""
        return self._library.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's K classes, in the order of the scores."""
        return self.manifest.labels

    @property
    def face_shape(self) -> tuple[int, int, int]:
        """The shape of one face as `scores` takes it, (C, S, S): (1, 64, 64) for FER+."""
        return self.manifest.face_shape

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed."""
        return self._library.closed

    def scores(self, x: ArrayLike) -> Scores:
        """Return the raw scores of faces, without any work on images.

        Parameters
        ----------
        x
            Real numbers of shape (N, C, S, S) as `face_shape` says, raw grey or RGB in 0..255;
            any N, stride, order, alignment and byte order.  Of a model that wants its pixels
            scaled, the library scales them itself.

        Returns
        -------
        numpy.ndarray
            float32 (N, K), in the order of `labels`.  N faces are split over the compiled batch
            sizes.

        Raises
        ------
        InputError
            If the shape or type is another, or a value is not finite.
        EngineClosedError
            If the engine was closed.
        """
        return self._scores(as_faces(x, self.face_shape))

    def _scores(self, faces: Scores) -> Scores:
        scores: Scores = self._library.submit(lambda session: session.scores(faces)).result()
        return scores

    def scores_on_gpu(self, x: Any) -> Any:
        """Return the raw scores of faces that are on the engine's GPU, and leave them there.

        Parameters
        ----------
        x
            A DLPack tensor on the same GPU, such as PyTorch's: contiguous float32 (N, 1, S, S),
            grey in 0..255, or (N, S, S, 3), RGB with the channels last; any N.  It is read in
            place.  Its values are not checked: one that is not finite makes scores of its face
            that mean nothing.

        Returns
        -------
        tvm_ffi.Tensor
            float32 (N, K) on the GPU, computed when this returns; a DLPack tensor, which
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
        if self._library.gpu is None:
            raise GpuError(
                "scores_on_gpu is for an engine on a GPU, and this one is on the CPU: load a "
                "library for a GPU with device='cuda:0', or give scores an array"
            )
        tensor = cast(CudaSession, self._library.session).take(x)
        return self._library.submit(lambda session: session.scores_on_gpu(tensor)).result()

    def on_session(self, function: Callable[[Any], Any]) -> Any:
        """Return what a function of the session returns, called on the engine's own thread.

        For measurements within this package; an app has no use for it.
        """
        return self._library.submit(function).result()

    def close(self) -> None:
        """Let go of the library and its memory, after the calls under way; again is harmless."""
        self._library.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Engine], tuple[Any, ...]]:
        make = functools.partial(
            type(self),
            threads=self._threads,
            device=self.device,
            checksum=self._checksum,
            target=self._target,
        )
        return make, (str(self.path),)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"threads={self.threads}"
        return f"<Engine {str(self.path)!r} {state}>"
