"""Machine code for a GPU (a cubin) in TVM's module, in place of the CUDA source that TVM stores."""

from __future__ import annotations

import importlib.metadata
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import CudaCompilerError
from ferplus_tvm.kernels.cuda.launch import source
from ferplus_tvm.toolchain.cuda_compiler import require_compiler


def cuda_source(executable: Any) -> str:
    """Return the whole CUDA source of an executable's kernels, as a CUDA compiler gets it.

    Raises
    ------
    CudaCompilerError
        If TVM has generated no kernels.
    """
    return source(_generated(executable))


def packed(executable: Any, arch: str) -> Callable[..., str]:
    """Compile an executable's kernels; return what packs them for TVM's ``export_library``.

    Raises
    ------
    CudaCompilerError
        If there is no compiler, it fails, or TVM packs modules in a format that is not known here.
    """
    generated = _generated(executable)
    code = require_compiler()(source(generated), arch)

    def pack(module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
        blob = with_cubin(_packed_imports(module), generated.encode(), code)
        path = Path(folder) / "devc.c"
        path.write_text(_c_source(blob))
        return str(path)

    return pack


def with_cubin(blob: bytes, generated: bytes, code: bytes) -> bytes:
    """Return packed imports with a CUDA module of machine code in place of the one of source.

    The format is TVM's own (tvm-ffi 0.1.14, library_module.cc; TVM 0.27, cuda_module.cc), with
    64-bit lengths before vectors and strings: the length of all that follows, two vectors that
    tell which module imports which, and for each module its kind and, but for the library itself
    (``_lib``), its bytes.  The bytes of a CUDA module are the format of its code, what TVM knows
    of its kernels, and the code, with nothing behind it.

    Parameters
    ----------
    blob
        The imports as TVM packs them.
    generated
        The source that TVM has generated, which the CUDA module in ``blob`` holds.
    code
        A cubin of it.

    Raises
    ------
    CudaCompilerError
        If ``blob`` is anything else.
    """
    reader = _Reader(blob)
    if reader.number() != len(blob) - 8:
        raise _unknown_format("its first number is not its length")
    start = reader.at
    modules = len(reader.vector()) // 8 - 1
    reader.vector()
    parts = [blob[start : reader.at]]
    replaced = 0
    for _ in range(modules):
        kind = reader.string()
        parts.append(_string(kind))
        if kind == b"_lib":
            continue
        content = reader.string()
        if kind == b"cuda":
            content = _replace_code(content, generated, code)
            replaced += 1
        parts.append(_string(content))
    if replaced != 1:
        raise _unknown_format(f"it holds {replaced} CUDA modules in place of one")
    if reader.at != len(blob):
        raise _unknown_format("it goes on behind its last module")
    body = b"".join(parts)
    return struct.pack("<Q", len(body)) + body


def _replace_code(content: bytes, generated: bytes, code: bytes) -> bytes:
    """Return the bytes of a CUDA module with a cubin in place of its source."""
    head, tail = _string(b"cuda"), _string(generated)
    if not (content.startswith(head) and content[len(head) :].endswith(tail)):
        raise _unknown_format("its CUDA module does not end with the source")
    kernels = content[len(head) : len(content) - len(tail)]
    return _string(b"cubin") + kernels + _string(code)


class _Reader:
    """Reads 64-bit numbers, and the vectors and strings whose lengths they are."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.at = 0

    def number(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def vector(self) -> bytes:
        return self._take(8 * self.number())

    def string(self) -> bytes:
        return self._take(self.number())

    def _take(self, size: int) -> bytes:
        if size > len(self._blob) - self.at:
            raise _unknown_format("it ends within a module")
        self.at += size
        return self._blob[self.at - size : self.at]


def _string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _unknown_format(found: str) -> CudaCompilerError:
    installed = " and ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("apache-tvm", "apache-tvm-ffi")
    )
    return CudaCompilerError(
        f"TVM's packed module has an unknown format ({found}) with {installed}: expected that of "
        "apache-tvm 0.27 and apache-tvm-ffi 0.1.14, which pip install 'ferplus_tvm[compile]' brings"
    )


def _generated(executable: Any) -> str:
    """Return what TVM has generated: its preamble, and a kernel for each launch."""
    left = [executable.mod]
    while left:
        module = left.pop()
        if module.kind == "cuda":
            return str(module.inspect_source("cuda"))
        left += list(module.imports)
    raise _unknown_format("it holds no CUDA module")


def _packed_imports(module: Any) -> bytes:
    """Return the imports of a module as TVM packs them: ``__tvm_ffi__library_bin``."""
    from tvm.runtime import _ffi_api

    tensor = _ffi_api.ModulePackImportsToTensor(module)
    return bytes(tensor.numpy().tobytes())


def _c_source(blob: bytes) -> str:
    """Return a C file that defines the packed imports.

    They are written as text in place of numbers, which compilers read ten times as fast.
    """
    rows = []
    for at in range(0, len(blob), 64):
        row = "".join(f"\\{byte:03o}" for byte in blob[at : at + 64])
        rows.append(f'"{row}"')
    text = "\n".join(rows)
    return (
        "#ifdef _WIN32\n__declspec(dllexport)\n#endif\n"
        f"extern const char __tvm_ffi__library_bin[{len(blob) + 1}];\n"
        f"const char __tvm_ffi__library_bin[{len(blob) + 1}] =\n{text};\n"
    )
