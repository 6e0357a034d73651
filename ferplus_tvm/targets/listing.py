"""The list of the targets that have a name."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ferplus_tvm.errors import MissingExtraError, TargetError
from ferplus_tvm.targets.gpus import GPUS
from ferplus_tvm.targets.named import NAMED
from ferplus_tvm.targets.parse import resolve
from ferplus_tvm.targets.resolved import ResolvedTarget


@dataclass(frozen=True)
class TargetInfo:
    """A target that can be asked for by name.

    Attributes
    ----------
    name
        What `ferplus_tvm.compile` takes as its target.
    hardware
        Machines or GPUs that have it.
    triple
        The LLVM target triple of its CPU.
    gpu_arch
        The architecture of its GPU, for example ``sm_90``, or None for a CPU target.
    features
        The CPU features that it needs, by LLVM's names.
    runs_here
        Whether this machine runs its code.
    """

    name: str
    hardware: str
    triple: str
    gpu_arch: str | None
    features: frozenset[str]
    runs_here: bool


def list_targets() -> tuple[TargetInfo, ...]:
    """Return the targets that have a name: ``native``, CPUs, ``cuda`` if there is a GPU, GPUs.

    Returns
    -------
    tuple of TargetInfo
        The verb ``ferplus-tvm targets`` shows the same, with what building for each of them needs.

    Raises
    ------
    MissingExtraError
        If TVM is not installed, which knows the features of CPUs.
    """
    try:
        import tvm as _tvm  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError.of("listing targets", "compile") from None
    native = resolve("native")
    found = [_info("native", f"this CPU ({native.name})", native)]
    found += [_info(name, named.hardware, resolve(name)) for name, named in NAMED.items()]
    with contextlib.suppress(TargetError):  # there is no GPU
        here = resolve("cuda")
        found.append(_info("cuda", f"this GPU ({here.name})", here))
    for gpu in GPUS.values():
        name = f"cuda/{gpu.arch}"
        found.append(_info(name, gpu.hardware, resolve(name)))
    return tuple(found)


def _info(name: str, hardware: str, target: ResolvedTarget) -> TargetInfo:
    return TargetInfo(
        name,
        hardware,
        target.triple,
        None if target.gpu is None else target.gpu.arch,
        frozenset(target.features),
        target.runs_here,
    )
