"""TVM's runtime library ``libtvm_runtime``: its file names, search path, and build id."""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
import struct
from pathlib import Path

from ferplus_tvm.errors import RuntimeLibraryError
from ferplus_tvm.host import cpu

ENVIRONMENT = "TVM_LIBRARY_PATH"
"""TVM's own environment variable for a folder that holds ``libtvm_runtime``."""


def file_name(system: str) -> str:
    """Return the file name of the runtime library on ``linux``, ``darwin`` or ``windows``."""
    return {"darwin": "libtvm_runtime.dylib", "windows": "tvm_runtime.dll"}.get(
        system, "libtvm_runtime.so"
    )


def gpu_file_name(system: str) -> str:
    """Return the file name of the runtime library's CUDA part on a system."""
    name = file_name(system)
    return name.replace("tvm_runtime", "tvm_runtime_cuda")


def installed() -> Path | None:
    """Return the runtime library of an installed apache-tvm, which is not imported, or None."""
    spec = importlib.util.find_spec("tvm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "lib" / file_name_here()
        if path.is_file():
            return path
    return None


def find(beside: Path) -> Path:
    """Return the runtime library to load for an artifact.

    It is searched for beside the artifact, then in an installed apache-tvm, then in the folder that
    the environment variable ``TVM_LIBRARY_PATH`` names.

    Parameters
    ----------
    beside
        The folder of the artifact.

    Raises
    ------
    RuntimeLibraryError
        If it is in none of them.
    """
    local = beside / file_name_here()
    if local.is_file():
        return local
    from_wheel = installed()
    if from_wheel is not None:
        return from_wheel
    folder = os.environ.get(ENVIRONMENT)
    if folder and (Path(folder) / file_name_here()).is_file():
        return Path(folder) / file_name_here()
    named = f"which is {folder!r}" if folder else "which is not set"
    raise RuntimeLibraryError(
        f"{file_name_here()} was not found beside the library ({beside}), in an installed "
        f"apache-tvm, or in the folder that {ENVIRONMENT} names ({named}): compile with "
        "--with-runtime, which puts a copy beside the library, or pip install apache-tvm"
    )


def identity(path: Path) -> str:
    """Return an ELF file's GNU build id, another file's sha256, or "" for a damaged file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _build_id(data) or f"sha256-{hashlib.sha256(data).hexdigest()}"
    except (ValueError, struct.error):  # empty, or cut off: the loader will say what is wrong
        return ""


def _build_id(data: mmap.mmap) -> str:
    if data[:5] != b"\x7fELF\x02":
        return ""
    order = "<" if data[5] == 1 else ">"
    (headers,) = struct.unpack_from(f"{order}Q", data, 0x20)
    size, count = struct.unpack_from(f"{order}HH", data, 0x36)
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from(
            f"{order}IIQQQQ", data, headers + index * size
        )
        while kind == 4 and length >= 16:  # PT_NOTE: name size, content size, type, name, content
            name, content, note = struct.unpack_from(f"{order}III", data, offset)
            start = offset + 12 + (-(-name // 4) * 4)
            if note == 3 and data[offset + 12 : offset + 16] == b"GNU\0":
                return data[start : start + content].hex()
            step = start + (-(-content // 4) * 4) - offset
            offset, length = offset + step, length - step
    return ""


def file_name_here() -> str:
    """Return the file name of the runtime library on this system."""
    return file_name(cpu.system())
