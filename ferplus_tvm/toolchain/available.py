"""The targets by name, and what this machine needs to compile for each and to run it."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass

from ferplus_tvm.errors import MissingExtraError, TargetError
from ferplus_tvm.targets import GPUS, NAMED, ResolvedTarget, resolve
from ferplus_tvm.toolchain.cuda_compiler import missing_compiler, require_compiler
from ferplus_tvm.toolchain.link import find_linker, missing_linker, require_linker


@dataclass(frozen=True)
class AvailableTarget:
    """A target that can be given by name.

    Attributes
    ----------
    name
        The name, as `ferplus_tvm.compile` takes it.
    hardware
        The machines that it is for, in words.
    target
        What the name stands for on this machine.
    linker
        The command that links for it, or None where none was found.
    missing
        For each tool that compiling for it needs and this machine lacks, what to install.
    """

    name: str
    hardware: str
    target: ResolvedTarget
    linker: list[str] | None
    missing: tuple[str, ...]

    @property
    def runs_here(self) -> bool:
        """Whether this machine runs its code."""
        return self.target.runs_here


def list_targets() -> tuple[AvailableTarget, ...]:
    """Return the targets that have a name: CPUs, then GPUs, this machine's own first.

    Raises
    ------
    LinkerError
        If the environment variable CC is not a command line.
    MissingExtraError
        If TVM is not installed, which knows the features of CPUs.
    """
    if importlib.util.find_spec("tvm") is None:
        raise MissingExtraError.of("listing targets", "compile")
    gpus = [f"cuda/{arch}" for arch in GPUS]
    with contextlib.suppress(TargetError):
        resolve("cuda")
        gpus.insert(0, "cuda")
    return tuple(_available(name) for name in ("native", *NAMED, *gpus))


def require_tools(target: ResolvedTarget) -> None:
    """See that the tools that compiling for a target ends with are there, before it begins.

    Raises
    ------
    LinkerError
        If no compiler is found that links for it.
    CudaCompilerError
        If it is a GPU, and there is neither nvcc nor NVRTC.
    """
    require_linker(target)
    if target.gpu is not None:
        require_compiler()


def _available(name: str) -> AvailableTarget:
    target = resolve(name)
    if name in NAMED:
        hardware = NAMED[name].hardware
    elif target.gpu is None:
        hardware = f"this CPU ({target.name})"
    else:
        hardware = f"this GPU ({target.name})" if name == "cuda" else target.gpu.hardware
    linker = find_linker(target.triple)
    missing = [
        None if linker else missing_linker(target.triple),
        None if target.gpu is None else missing_compiler(),
    ]
    return AvailableTarget(name, hardware, target, linker, tuple(filter(None, missing)))
