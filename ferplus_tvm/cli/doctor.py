"""``ferplus-tvm doctor``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from ferplus_tvm._version import __version__
from ferplus_tvm.cli.output import print_facts
from ferplus_tvm.errors import LinkerError

_PACKAGES = (
    "apache-tvm-ffi",
    "apache-tvm",
    "numpy",
    "Pillow",
    "onnx",
    "onnxruntime",
)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Show what a bug report needs: versions, CPU, GPU, compilers, threads and folders."""
    from ferplus_tvm.host import cpu, runtime_library
    from ferplus_tvm.records.find import own
    from ferplus_tvm.zoo.registry import cache_dir

    quota = cpu.cgroup_quota()
    runtime = runtime_library.installed()
    facts = {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "ferplus_tvm": __version__,
        **{name: _version(name) for name in _PACKAGES},
        "CPU": cpu.name(),
        "features": " ".join(sorted(cpu.features())) or "unknown",
        "LLVM CPU name": _llvm_cpu(),
        "CPU affinity": f"{len(cpu.allowed())} of {os.cpu_count()} CPUs",
        "CPU quota": "none" if quota is None else f"{quota:g} CPUs",
        "default threads": str(cpu.default_threads()),
        "compiler": _compiler(),
        "GPU": _gpu(),
        "CUDA compiler": _cuda_compiler(),
        "libtvm_runtime": _short(runtime) if runtime else "not installed",
        runtime_library.ENVIRONMENT: _short(os.environ.get(runtime_library.ENVIRONMENT, "not set")),
        "temporary files": _temporary(),
        "cache folder": _short(cache_dir()),
        "tuning logs": _short(own()),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    print_facts(list(facts.items()))


def _temporary() -> str:
    import shutil
    import tempfile

    from ferplus_tvm.runtime.noexec import noexec_mount

    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        return "none: let TMPDIR name a folder that can be written to"
    noexec = ", mounted noexec" if noexec_mount(folder) else ""
    return f"{_short(folder)} ({shutil.disk_usage(folder).free / 1e6:.0f} MB free{noexec})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _llvm_cpu() -> str:
    try:
        from tvm.target import codegen
    except ImportError:
        return "unknown (apache-tvm is not installed)"
    return str(codegen.llvm_get_system_cpu())


def _compiler() -> str:
    from ferplus_tvm.host import cpu
    from ferplus_tvm.toolchain.link import find_linker

    try:
        command = find_linker(f"{cpu.architecture()}-unknown-{cpu.system()}")
    except LinkerError as error:
        return str(error)
    if command is None:
        return "none: install gcc or clang, or pip install ziglang"
    return " ".join(_short(word) for word in command)


def _gpu() -> str:
    from ferplus_tvm.errors import GpuError
    from ferplus_tvm.host import gpu

    try:
        return ", ".join(f"{each.name} ({each.arch})" for each in gpu.devices())
    except GpuError as error:
        return f"none: {error}"


def _cuda_compiler() -> str:
    from ferplus_tvm.toolchain import cuda_compiler, nvcc

    path = nvcc.find()
    missing = cuda_compiler.missing_compiler()
    return _short(path) if path else f"none: {missing}" if missing else "NVRTC"


def _short(path: str | Path) -> str:
    """Return a path without the user's name, because bug reports are public."""
    home = str(Path.home())
    text = str(path)
    if len(home) > 1 and text.startswith(home + os.sep):
        return "~" + text[len(home) :]
    return text.replace(sys.prefix, "<prefix>") if text.startswith(sys.prefix + os.sep) else text
