"""From the CUDA source of a module to machine code for one architecture, in TVM's module.

TVM itself stores the source where there is no GPU, and asks for a compiler where the library is
loaded; here the compiler runs now: nvcc, or NVRTC of the extra ``cuda``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import CudaCompilerError, last_line
from ferplus_tvm.host.temporary import temporary_folder
from ferplus_tvm.kernels.cuda.launch import source

_STANDARD = "-std=c++20"  # templates take structs of constants
_INSTALL = (
    "install NVIDIA's CUDA toolkit, version 12 or later, and put nvcc on the PATH, or pip install "
    "'ferplus_tvm[cuda]'"
)


@contextmanager
def kernels_as_source() -> Iterator[None]:
    """Have TVM keep a GPU's kernels as source where there is a GPU, as it does where there is none.

    It would compile them itself there, by a package that may not be installed.
    """
    name = "TVM_COMPILE_FORCE_FALLBACK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def find_nvcc() -> str | None:
    """Return the path of nvcc: on the PATH, or in the folder that CUDA_HOME or CUDA_PATH names."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        folder = os.environ.get(variable)
        found = shutil.which("nvcc", path=os.path.join(folder, "bin")) if folder else None
        if found:
            return found
    return shutil.which("nvcc")


def has_nvrtc() -> bool:
    """Whether what the extra ``cuda`` installs is there."""
    try:
        return importlib.util.find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        return False


def missing_compiler() -> str | None:
    """Return what to install in order to compile for GPUs, or None if it is there."""
    return None if find_nvcc() or has_nvrtc() else "nvcc, or pip install 'ferplus_tvm[cuda]'"


def require_compiler() -> Callable[[str, str], bytes]:
    """Return what compiles source for an architecture: nvcc where it is found, or NVRTC.

    Raises
    ------
    CudaCompilerError
        If there is neither.
    """
    nvcc = find_nvcc()
    if nvcc is not None:
        return lambda source, arch: _by_nvcc(nvcc, source, arch)
    if has_nvrtc():
        return _by_nvrtc
    raise CudaCompilerError(f"no CUDA compiler was found for a GPU target: {_INSTALL}")


def packed(executable: Any, arch: str) -> Callable[..., str]:
    """Compile an executable's kernels; return what packs them for TVM's ``export_library``.

    Raises
    ------
    CudaCompilerError
        If there is no compiler, or it fails.
    """
    generated = _generated(executable)
    code = require_compiler()(source(generated), arch)

    def pack(module: Any, is_system_lib: bool, prefix: str, folder: str) -> str:
        blob = _with_machine_code(_blob(module), generated.encode(), code)
        path = Path(folder) / "devc.c"
        path.write_text(_c_source(blob))
        return str(path)

    return pack


def _by_nvcc(nvcc: str, source: str, arch: str) -> bytes:
    with temporary_folder() as folder:
        kernels, output = folder / "kernels.cu", folder / "kernels.cubin"
        kernels.write_text(source)
        options = [_STANDARD, "-O3", f"-arch={arch}", "--cubin"]
        command = [nvcc, *options, "-o", str(output), str(kernels)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=600,
                check=False,
                # A compiler that is killed leaves its own temporary files.
                env={**os.environ, "TMPDIR": str(folder)},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CudaCompilerError(f"{nvcc} did not compile the kernels: {error}") from error
        if done.returncode != 0:
            raise _failed(nvcc, arch, done.stderr or done.stdout)
        return output.read_bytes()


def _by_nvrtc(source: str, arch: str) -> bytes:
    try:
        from cuda.bindings import nvrtc
        from cuda.pathfinder import find_nvidia_header_directory

        include = find_nvidia_header_directory("cudart")
        nvrtc.nvrtcVersion()  # which loads the library
    except (ImportError, OSError, RuntimeError) as error:
        raise CudaCompilerError(f"NVRTC cannot be used ({last_line(error)}): {_INSTALL}") from error
    if include is None:
        raise CudaCompilerError(f"NVRTC's headers (cuda_fp16.h) were not found: {_INSTALL}")
    options = [_STANDARD, f"--gpu-architecture={arch}", f"--include-path={include}"]

    def expect(answer: tuple[Any, ...]) -> Any:
        if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise _failed("NVRTC", arch, answer[0].name)
        return answer[1] if len(answer) > 1 else None

    program = expect(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    try:
        compiled = nvrtc.nvrtcCompileProgram(
            program, len(options), [option.encode() for option in options]
        )
        if compiled[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(expect(nvrtc.nvrtcGetProgramLogSize(program)))
            expect(nvrtc.nvrtcGetProgramLog(program, log))
            raise _failed("NVRTC", arch, log.decode(errors="replace").rstrip("\0"))
        code = bytearray(expect(nvrtc.nvrtcGetCUBINSize(program)))
        expect(nvrtc.nvrtcGetCUBIN(program, code))
        return bytes(code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _failed(compiler: str, arch: str, said: str) -> CudaCompilerError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = next((line for line in lines if "error" in line or "fatal" in line), "")
    reason = told or (lines[-1] if lines else "it said nothing")
    return CudaCompilerError(
        f"{compiler} did not compile the kernels for {arch} ({reason}): see that it is of CUDA 12 "
        "or later and knows the architecture"
    )


def _generated(executable: Any) -> str:
    """Return what TVM has generated: its preamble, and a kernel for each launch."""
    left = [executable.mod]
    while left:
        module = left.pop()
        if module.kind == "cuda":
            return str(module.inspect_source("cuda"))
        left += list(module.imports)
    raise AssertionError("a module for a GPU holds CUDA kernels")


def _blob(module: Any) -> bytes:
    """Return the imports of a module as TVM packs them: ``__tvm_ffi__library_bin``."""
    from tvm.runtime import _ffi_api

    tensor = _ffi_api.ModulePackImportsToTensor(module)
    return bytes(tensor.numpy().tobytes())


def _with_machine_code(blob: bytes, text: bytes, code: bytes) -> bytes:
    """Return the packed imports with a CUDA module of machine code in place of its source.

    They are, with 64-bit lengths before vectors and strings: the length of all, two vectors that
    tell which imports which, and for each module its kind and, but for the library itself, its
    bytes.  A CUDA module's are the format of its code, what TVM knows of its kernels, the code, and
    nothing behind it (tvm-ffi 0.1.14, library_module.cc; TVM 0.27, cuda_module.cc).
    """
    reader = _Reader(blob)
    start = reader.at
    modules = len(reader.vector()) // 8 - 1
    reader.vector()
    parts = [blob[start : reader.at]]
    for _ in range(modules):
        kind = reader.vector(1)
        parts.append(_string(kind))
        if kind == b"_lib":
            continue
        content = reader.vector(1)
        if kind == b"cuda":
            written = _string(b"cuda")
            assert content.startswith(written) and content.endswith(_string(text))
            known = content[len(written) : -len(_string(text))]
            content = _string(b"cubin") + known + _string(code)
        parts.append(_string(content))
    assert reader.at == len(blob)
    body = b"".join(parts)
    return struct.pack("<Q", len(body)) + body


class _Reader:
    """Reads lengths and what follows them."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.at = 8  # behind the length of all

    def vector(self, item_bytes: int = 8) -> bytes:
        """Read a vector, or a string where an item is a byte."""
        (count,) = struct.unpack_from("<Q", self._blob, self.at)
        start = self.at + 8
        self.at = start + count * item_bytes
        return self._blob[start : self.at]


def _string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _c_source(blob: bytes) -> str:
    """Return a C file that defines the packed imports.

    As text in place of numbers, which compilers read ten times as fast.
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
