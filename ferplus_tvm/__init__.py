"""FER+ facial emotion recognition, compiled ahead of time with Apache TVM.

Run a compiled library (needs numpy, Pillow and apache-tvm-ffi)::

    import ferplus_tvm as fer

    with fer.load("ferplus.so") as engine:
        print(engine.predict("face.jpg").label)

Compile one (needs the extra ``compile``)::

    fer.compile("bundled", target="native", output="ferplus.so")

Functions and classes that need the compiler half are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from ferplus_tvm import errors
from ferplus_tvm._version import __version__
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.artifact.manifest import ChecksumLevel, Manifest
from ferplus_tvm.errors import FerplusError, MissingExtraError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.faces.postprocess import Prediction, postprocess
from ferplus_tvm.faces.preprocess import preprocess
from ferplus_tvm.faces.sources import Source
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.photos import PhotoOptions
from ferplus_tvm.videos.camera import Camera
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.timeline import Timeline
from ferplus_tvm.videos.video import Video, video
from ferplus_tvm.videos.write import VideoWriter
from ferplus_tvm.vision.detections import Detection
from ferplus_tvm.vision.photo import Face, Photo

if TYPE_CHECKING:
    from ferplus_tvm.compiler.compile import compile as compile
    from ferplus_tvm.compiler.pipeline import CompileResult as CompileResult
    from ferplus_tvm.compiler.test_data import SetResult as SetResult
    from ferplus_tvm.compiler.verify import Verification as Verification
    from ferplus_tvm.compiler.verify import verify as verify
    from ferplus_tvm.records.log import Gain as Gain
    from ferplus_tvm.toolchain.available import AvailableTarget as AvailableTarget
    from ferplus_tvm.toolchain.available import list_targets as list_targets
    from ferplus_tvm.tuning.tune import TuneResult as TuneResult
    from ferplus_tvm.tuning.tune import tune as tune
    from ferplus_tvm.zoo.by_name import fetch_model as fetch_model

# Quiet, unless the app has logging of its own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "EMOTIONS",
    "AvailableTarget",
    "Camera",
    "CompileResult",
    "Detection",
    "Engine",
    "Face",
    "FerplusError",
    "Frame",
    "Gain",
    "Manifest",
    "Photo",
    "PhotoOptions",
    "Prediction",
    "PreprocessOptions",
    "SetResult",
    "Source",
    "Timeline",
    "TuneResult",
    "Verification",
    "Video",
    "VideoWriter",
    "__version__",
    "compile",
    "errors",
    "fetch_model",
    "list_targets",
    "load",
    "postprocess",
    "preprocess",
    "read_manifest",
    "tune",
    "verify",
    "video",
]

# The module of each name that is imported when it is first asked for, and the extra that has
# what the module needs.
_LAZY = {
    "AvailableTarget": ("ferplus_tvm.toolchain.available", "compile"),
    "CompileResult": ("ferplus_tvm.compiler.pipeline", "compile"),
    "Gain": ("ferplus_tvm.records.log", "compile"),
    "SetResult": ("ferplus_tvm.compiler.test_data", "compile"),
    "TuneResult": ("ferplus_tvm.tuning.tune", "compile"),
    "Verification": ("ferplus_tvm.compiler.verify", "compile"),
    "compile": ("ferplus_tvm.compiler.compile", "compile"),
    "fetch_model": ("ferplus_tvm.zoo.by_name", "cli"),
    "list_targets": ("ferplus_tvm.toolchain.available", "compile"),
    "tune": ("ferplus_tvm.tuning.tune", "compile"),
    "verify": ("ferplus_tvm.compiler.verify", "compile"),
}


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: str = "cpu",
    checksum: ChecksumLevel = "full",
    target: str | None = None,
) -> Engine:
    """Check a compiled library and open it.

    Parameters
    ----------
    path
        A library made by `compile` or ``ferplus-tvm compile``.  A library is code: load only what
        you trust; its checksums find accidents, not attackers.
    threads
        CPU threads for one call, of which no more run than the affinity allows CPUs; by default
        as many CPUs as this process may use (affinity and cgroup quota).
    device
        ``"cpu"``, or an NVIDIA GPU: ``"cuda"`` for the first, or ``"cuda:1"``.  There is no falling
        back from one to the other.
    checksum
        ``"full"`` checks every byte before the file is opened, some 40 ms for 90 MB;
        ``"manifest"`` leaves out the weights, for a caller who has verified the file before.
    target
        Of a library for several targets, the one to use; by default the one with the most features
        that this CPU has, or the one nearest to the GPU.

    Returns
    -------
    Engine
        The opened library; close it, or use it as a context manager.

    Raises
    ------
    ArtifactError
        If the file is not a whole library of ours, or this machine cannot run it; its subclasses
        tell apart why.
    GpuError
        If there is no such GPU or driver, the library holds no code that it runs, or its memory is
        full.
    TemporaryFolderError
        If a file without a library's suffix is opened, which takes a temporary folder, and there is
        none.
    ValueError
        For an argument out of its range.

    Notes
    -----
    ``tvm`` may be imported before or after, where the installed apache-tvm is the one that the
    library was compiled with.  With another one installed, and a ``libtvm_runtime`` beside the
    library, import it in another process: two different runtimes in one end it.

    ``tvm_ffi`` is kept from importing PyTorch, which it would do wherever that is installed; what
    it offers for PyTorch is then missing in this process.  Import ``torch`` first to have it.
    """
    return Engine(path, threads=threads, device=device, checksum=checksum, target=target)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, extra = _LAZY[name]
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("ferplus_tvm"):
                raise
            raise MissingExtraError.of(
                f"ferplus_tvm.{name} (no module {error.name})", extra
            ) from None
    raise AttributeError(f"module 'ferplus_tvm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
