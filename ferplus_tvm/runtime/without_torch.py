"""Import apache-tvm-ffi without PyTorch, which it imports by itself."""

from __future__ import annotations

import importlib.abc
import os
import sys
import threading

from ferplus_tvm.errors import RuntimeLibraryError, one_line


def import_tvm_ffi() -> None:
    """Import apache-tvm-ffi, which takes some 60 ms the first time, without PyTorch.

    By itself it imports PyTorch wherever that is installed: a second and 500 MB in an app that
    may never use it.  What an app has imported before stays; on Windows its order matters to
    PyTorch's libraries, and is left alone.

    Raises
    ------
    RuntimeLibraryError
        If it cannot be imported.
    """
    try:
        _import()
    except (ImportError, OSError) as error:
        raise RuntimeLibraryError(
            f"apache-tvm-ffi cannot be imported ({one_line(error)}): pip install apache-tvm-ffi, "
            "whose wheels are for Linux with glibc 2.28 or later (x86-64 and aarch64; not musl, as "
            "in Alpine), macOS on arm64 and Windows on x86-64"
        ) from error


def _import() -> None:
    if "tvm_ffi" in sys.modules or "torch" in sys.modules or os.name == "nt":
        import tvm_ffi as _tvm_ffi
    else:
        missing = _NoTorch(threading.get_ident())
        sys.meta_path.insert(0, missing)
        try:
            import tvm_ffi as _tvm_ffi  # noqa: F401
        finally:
            sys.meta_path.remove(missing)


class _NoTorch(importlib.abc.MetaPathFinder):
    """Has PyTorch look as if it was not installed, to one thread."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("not now", name=name)
