"""Load ``libtvm_runtime``, and open a compiled library with it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferplus_tvm.artifact.library_file import Artifact
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.errors import ArtifactError, RuntimeLibraryError, TemporaryFolderError
from ferplus_tvm.host import cpu, runtime_library
from ferplus_tvm.runtime.noexec import noexec_problem
from ferplus_tvm.runtime.without_torch import import_tvm_ffi

_log = logging.getLogger(__name__)


@dataclass
class _State:
    """What this process has loaded; all of it stays loaded for the process's life.

    Attributes
    ----------
    lock
        Held by the thread that loads.
    runtime
        The ``libtvm_runtime`` that was loaded, or None.
    gpu_runtime
        Whether TVM's part for GPUs was loaded too.
    modules
        The opened libraries, by the sha256 of their code.
    files
        What each file held when it was opened, by its device and number.
    pins
        Maps that keep the numbers of files from being reused.
    paths
        The code that the dynamic loader knows under a path.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    runtime: Path | None = None
    gpu_runtime: bool = False
    modules: dict[str, Any] = field(default_factory=dict)
    files: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    pins: list[Any] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)


_state = _State()


def renew_lock() -> None:
    """Replace the lock; for a forked child, where its holder may be gone."""
    _state.lock = threading.Lock()


def open_module(artifact: Artifact) -> Any:
    """Open the library with the dynamic loader, once per process for the same code.

    TVM keeps an opened library for the life of the process, so engines over the same code share
    it.

    Raises
    ------
    RuntimeLibraryError
        If the runtime library is missing or not the one that the artifact was compiled with.
    ArtifactError
        If the file was overwritten in place while its former content was in use, its file system
        is mounted noexec, or the loader refuses it.
    """
    with _state.lock:
        runtime = choose_runtime(artifact.path.parent, artifact.manifest)
        try:
            return _opened(artifact, runtime)
        except ArtifactError as error:
            problem = noexec_problem(artifact.path, artifact.manifest, runtime)
            if problem is None:
                raise
            raise ArtifactError(problem) from error


def _opened(artifact: Artifact, runtime: Path) -> Any:
    """Return the opened library, which may have been opened before."""
    _load_runtime(runtime, artifact.manifest)
    if artifact.manifest.gpu_arch:
        _load_gpu_runtime(runtime, artifact.manifest)
    code = artifact.manifest.image_sha256
    content = tuple(each.image_sha256 for each in artifact.manifests)
    if _state.files.get(artifact.file, content) != content:
        raise ArtifactError(
            f"{artifact.path} was overwritten in place after this process had opened it: "
            "replace a library by renaming another over it, and restart this process"
        )
    if code not in _state.modules:
        first = artifact.manifest.image_offset == 0
        _state.modules[code] = _open(artifact, code) if first else _open_copy(artifact, code)
        _state.files[artifact.file] = content
    return _state.modules[code]


def choose_runtime(beside: Path, manifest: Manifest) -> Path:
    """Return the runtime library that a library in the folder ``beside`` would be run with.

    Raises
    ------
    RuntimeLibraryError
        If there is none, or it or apache-tvm-ffi is not the one that the library needs.
    """
    import_tvm_ffi()
    import tvm_ffi

    # tvm-ffi promises nothing between releases, and 0.1.15 has broken what 0.1.14 ran.
    ours, theirs = (_release(v) for v in (tvm_ffi.__version__, manifest.tvm_ffi_version))
    if ours != theirs:
        raise RuntimeLibraryError(
            f"the library was compiled with apache-tvm-ffi {manifest.tvm_ffi_version}, but "
            f"{tvm_ffi.__version__} is installed: pip install 'apache-tvm-ffi~="
            f"{theirs}.0', or compile it again"
        )
    if _state.runtime is not None:
        path = _state.runtime
    else:
        path = runtime_library.find(beside)
        own = runtime_library.installed()
        # Two copies in a process end it.  An imported tvm has loaded its own, and one that is
        # imported later will: where that is the same build, the copy beside the library is left.
        if own is not None and (
            "tvm" in sys.modules or runtime_library.identity(own) == runtime_library.identity(path)
        ):
            path = own
    _expect(path, manifest)
    return path


def _load_runtime(path: Path, manifest: Manifest) -> None:
    """Load the runtime library, unless one is loaded already."""
    if _state.runtime is not None:
        return
    try:
        ctypes.CDLL(str(path.resolve()), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise RuntimeLibraryError(
            f"{path} cannot be loaded ({error}): put the {path.name} of apache-tvm "
            f"{manifest.tvm_version} for this machine in its place"
        ) from error
    _state.runtime = path
    _log.debug("loaded %s", path)


def _load_gpu_runtime(runtime: Path, manifest: Manifest) -> None:
    """Load TVM's part for GPUs, which lies beside the runtime library that is used."""
    if _state.gpu_runtime:
        return
    path = runtime.parent / runtime_library.gpu_file_name(cpu.system())
    if not path.is_file():
        raise RuntimeLibraryError(
            f"{path.name} was not found beside {runtime}: put that of apache-tvm "
            f"{manifest.tvm_version} there (compile with --with-runtime copies it), or pip install "
            "apache-tvm"
        )
    _load_cuda_runtime()
    try:
        ctypes.CDLL(str(path.resolve()), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise RuntimeLibraryError(
            f"{path} cannot be loaded ({error}): it needs the CUDA runtime library of CUDA 13 (pip "
            "install 'ferplus_tvm[gpu]', or the CUDA toolkit) and the GPU's driver"
        ) from error
    _state.gpu_runtime = True


def _load_cuda_runtime() -> None:
    """Load the CUDA runtime library of NVIDIA's package, if the system has none of its own."""
    if os.name == "nt":
        return  # the package's folder is not searched there: it has to be on the PATH
    for folder in _nvidia_folders():
        for path in sorted(folder.glob("cu13/lib/libcudart.so.13")):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _nvidia_folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _expect(path: Path, manifest: Manifest) -> None:
    found = runtime_library.identity(path)
    if manifest.runtime_id and found and found != manifest.runtime_id:
        raise RuntimeLibraryError(
            f"{path} has build id {found[:12]}, but the library was compiled with apache-tvm "
            f"{manifest.tvm_version}, whose {path.name} has build id "
            f"{manifest.runtime_id[:12]}: install that version, or compile the library again"
        )


def _open(artifact: Artifact, code: str) -> Any:
    """Open the file's first image, where it lies."""
    import tvm_ffi

    path = artifact.path
    _expect_same(artifact)
    try:
        if (
            path.suffix in (".so", ".dll", ".dylib")
            and _state.paths.setdefault(str(path), code) == code
        ):
            module = tvm_ffi.load_module(str(path))
        else:
            # slow to import, and hardly ever needed
            from ferplus_tvm.host.temporary import temporary_folder

            # tvm-ffi wants a library's suffix; and the dynamic loader goes by the name first, so
            # it would answer with the code that it opened under this name before.
            with temporary_folder(room=0) as folder:
                alias = folder / f"{code}.so"
                alias.symlink_to(path)
                module = tvm_ffi.load_module(str(alias))
    except (RuntimeError, OSError) as error:
        raise ArtifactError(
            f"{path} was refused by the dynamic loader ({_refusal(error)}): compile it again on "
            "this machine"
        ) from error
    # From here on the loader keeps the file mapped, so that its number is not given to another.
    _expect_same(artifact)
    return module


def _expect_same(artifact: Artifact) -> None:
    """See that a file's name still is that of the file that was checked."""
    try:
        status = artifact.path.stat()
        same = (status.st_dev, status.st_ino) == artifact.file
    except OSError:
        same = False
    if not same:
        raise ArtifactError(
            f"{artifact.path} was replaced while it was being opened: load it again"
        )


def _open_copy(artifact: Artifact, code: str) -> Any:
    """Open another image than the file's first, from a temporary copy of it."""
    import tvm_ffi

    from ferplus_tvm.host.temporary import temporary_folder

    try:
        _log.debug("%s is copied to be opened", artifact.manifest.target)
        with temporary_folder(artifact.manifest.image_bytes) as folder:
            copy = folder / f"{code}.so"
            copy.write_bytes(artifact.image())
            module = tvm_ffi.load_module(str(copy))
    except (RuntimeError, OSError, TemporaryFolderError) as error:
        full = isinstance(error, TemporaryFolderError)
        reason = str(error) if full else f"that failed ({_refusal(error)}): compile it again"
        raise ArtifactError(
            f"the code for {artifact.manifest.target} in {artifact.path} has to be opened from a "
            f"temporary file, but {reason}, or compile for this machine alone"
        ) from error
    # The file's number must not be given to another while this code is in use.
    _state.pins.append(artifact.pin())
    _expect_same(artifact)
    return module


def _refusal(error: Exception) -> str:
    """Return what the dynamic loader says after the file's name."""
    return " ".join(str(error).rpartition(".so: ")[2].split())


def _release(version: str) -> str:
    return ".".join(version.split(".")[:3])
