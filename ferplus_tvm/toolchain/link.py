"""Find a linker for a target and link object files into a shared library."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import LinkerError
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.targets.triples import arch_of, is_host, system_of
from ferplus_tvm.toolchain import cubin

# A C driver is enough: kernels use nothing of C++.
_DRIVERS = ("cc", "gcc", "clang", "c++", "g++", "clang++")


def find_linker(triple: str) -> list[str] | None:
    """Return the command of a C or C++ compiler that can link for ``triple``, or None.

    For this machine: what ``CC`` or ``CXX`` name, then the usual names.  For another: the usual
    names behind the triple's prefix (``aarch64-linux-gnu-gcc``).  Last, for either, ``zig cc`` of
    the ``ziglang`` package.

    Raises
    ------
    LinkerError
        If ``CC`` or ``CXX`` is not a command line.
    """
    return next(_candidates(triple), None)


def _candidates(triple: str) -> Iterator[list[str]]:
    if is_host(triple):
        for variable in ("CC", "CXX"):
            try:
                command = shlex.split(os.environ.get(variable, ""))
            except ValueError as error:
                raise LinkerError(
                    f"the environment variable {variable} is not a command line ({error}): set it "
                    "to a compiler such as gcc, or unset it"
                ) from error
            if command and shutil.which(command[0]):
                yield command
    prefix = "" if is_host(triple) else f"{arch_of(triple)}-{_gnu_system(triple)}-"
    for driver in _DRIVERS:
        path = shutil.which(prefix + driver)
        if path:
            yield [path]
    if importlib.util.find_spec("ziglang"):
        target = f"{arch_of(triple)}-{_zig_system(triple)}"
        yield [sys.executable, "-m", "ziglang", "cc", "-target", target]


def missing_linker(triple: str) -> str:
    """Return what to install in order to link for ``triple``."""
    if is_host(triple):
        return "gcc or clang, or pip install ziglang"
    if system_of(triple) == "linux":
        # As Debian and Ubuntu name it, with a hyphen where an architecture has none in a package.
        arch = arch_of(triple).replace("_", "-")
        return f"g++-{arch}-{_gnu_system(triple)} (Debian's), or pip install ziglang"
    return "pip install ziglang"


def require_linker(target: ResolvedTarget) -> list[str]:
    """Return the command of a C or C++ compiler that can link for a target.

    Raises
    ------
    LinkerError
        If none is found.
    """
    command = find_linker(target.triple)
    if command is None:
        raise LinkerError(
            f"no C or C++ compiler that links for {target.arch} ({target.triple}) was found: "
            f"install {missing_linker(target.triple)}"
        )
    return command


def link(target: ResolvedTarget, output: Path, objects: Sequence[str]) -> None:
    """Link ``objects`` into the shared library ``output``, or into one object.

    Raises
    ------
    LinkerError
        If no compiler is found, or it fails (with the last line of substance that it said).
    """
    command = require_linker(target)
    options = ["-shared", "-fPIC"] if target.loadable else ["-r", "-nostdlib"]
    if target.system == "darwin":
        options += ["-undefined", "dynamic_lookup"]  # TVM's functions come from the process
    try:
        done = subprocess.run(
            [*command, *options, "-o", str(output), *objects],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            check=False,
            # A linker that is killed leaves its own temporary files.
            env={**os.environ, "TMPDIR": str(output.parent)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LinkerError(f"{shlex.join(command)} did not link the library: {error}") from error
    if done.returncode != 0:
        raise LinkerError(
            f"{shlex.join(command)} failed with status {done.returncode} to link for "
            f"{target.triple} ({_reason(done.stderr or done.stdout)}): 'ferplus-tvm doctor' shows "
            "which compiler is used"
        )


def export_library(executable: Any, target: ResolvedTarget, output: Path) -> None:
    """Link what TVM has compiled into the shared library ``output``, a GPU's kernels in it.

    Object files lie in the folder of ``output`` meanwhile: give a temporary one, which somebody
    removes even where this process is killed.

    Raises
    ------
    LinkerError
        As `link` does.
    CudaCompilerError
        If a GPU's kernels cannot be compiled.
    """
    pack = None if target.gpu is None else cubin.packed(executable, target.gpu.arch)

    def run_linker(path: str, objects: Sequence[str]) -> None:
        link(target, Path(path), objects)

    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        executable.export_library(
            str(output), fcompile=run_linker, fpack_imports=pack, workspace_dir=folder
        )


def _reason(said: str) -> str:
    """Return the last line of substance: gcc and lld let remarks follow the error itself."""
    lines = [line.strip() for line in said.splitlines()]
    told = [line for line in lines if line and not line.startswith(("collect2:", ">>>"))]
    return told[-1] if told else "it said nothing"


def _gnu_system(triple: str) -> str:
    """Return the system part of a triple as Debian's cross compilers spell it: ``linux-gnu``."""
    parts = triple.split("-")
    return "-".join(parts[2:]) if len(parts) > 3 else "-".join(parts[1:])


def _zig_system(triple: str) -> str:
    system = system_of(triple)
    return {"darwin": "macos", "windows": "windows-gnu"}.get(system, "linux-gnu")
