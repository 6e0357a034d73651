"""FER+ facial emotion recognition, compiled ahead of time with Apache TVM.

Run a compiled library (needs numpy, Pillow and apache-tvm-ffi)::

    import ferplus_tvm as fer

    with fer.load("ferplus.so") as engine:
        print(engine.predict("face.jpg").label)

Compile one (needs the extra ``compile``)::

    fer.compile("bundled", target="native", output="ferplus.so")
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from ferplus_tvm import errors
from ferplus_tvm._version import __version__
from ferplus_tvm.artifact.manifest import ChecksumLevel
from ferplus_tvm.errors import FerplusError, MissingExtraError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.postprocess import Prediction, postprocess
from ferplus_tvm.faces.preprocess import preprocess
from ferplus_tvm.runtime.engine import Engine

if TYPE_CHECKING:
    from ferplus_tvm.compiler.compile import compile as compile
    from ferplus_tvm.compiler.verify import verify as verify
    from ferplus_tvm.tuning.tune import tune as tune

# Quiet, unless the app has logging of its own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "EMOTIONS",
    "Engine",
    "FerplusError",
    "Prediction",
    "__version__",
    "compile",
    "errors",
    "load",
    "postprocess",
    "preprocess",
    "tune",
    "verify",
]

_COMPILER = {
    "compile": "ferplus_tvm.compiler.compile",
    "tune": "ferplus_tvm.tuning.tune",
    "verify": "ferplus_tvm.compiler.verify",
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

    Raises
    ------
    ArtifactError
        If the file is not a whole library of ours, or this machine cannot run it; its subclasses
        tell apart why.
    GpuError
        If there is no such GPU or driver, the library holds no code that it runs, or its memory is
        full.
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
    # The compiler half is imported only when it is asked for, and may not be installed.
    if name in _COMPILER:
        import importlib

        try:
            return getattr(importlib.import_module(_COMPILER[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("ferplus_tvm"):
                raise
            raise MissingExtraError.of(
                f"ferplus_tvm.{name} (no module {error.name})", "compile"
            ) from None
    raise AttributeError(f"module 'ferplus_tvm' has no attribute {name!r}")
