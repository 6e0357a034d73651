"""Choose a library's part for a machine, or say why the machine cannot run it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.errors import CpuFeatureError, GpuError
from ferplus_tvm.host import cpu, gpu


def best(manifests: Sequence[Manifest], device: gpu.Device | None = None) -> Manifest:
    """Return the part for ``device``, by default for this CPU, that uses the most of it.

    Where nothing runs, it is the part that lacks the least, which `refusal` then explains.
    """
    if device is None and all(each.gpu_arch for each in manifests):
        with suppress(GpuError):  # whoever wants to run it is told then
            device = gpu.devices()[0]
    of_kind = [each for each in manifests if bool(each.gpu_arch) == (device is not None)]
    able = [each for each in of_kind if _is_here(each) and not _missing(each)]
    if device is not None:
        able = [each for each in able if device.runs(each.gpu_arch)]
    if able:
        return max(able, key=_rank)
    return min(of_kind or manifests, key=lambda each: len(_missing(each)))


def refusal(
    manifest: Manifest, device: gpu.Device | None = None
) -> CpuFeatureError | GpuError | None:
    """Return the error that says why this machine cannot run a library, or None if it can.

    A library for a GPU has to run on ``device``, by default on any GPU of this machine.
    """
    reason = _reason_of_cpu(manifest)
    if reason:
        return CpuFeatureError(reason)
    if not manifest.gpu_arch:
        return None
    try:
        devices = gpu.devices() if device is None else (device,)
    except GpuError as error:
        return GpuError(f"it is compiled for a GPU ({manifest.target}), but {error}")
    if any(each.runs(manifest.gpu_arch) for each in devices):
        return None
    found = ", ".join(f"{each.name} is {each.arch}" for each in devices)
    return GpuError(
        f"its kernels are machine code for {manifest.gpu_arch}, and the GPU here is another "
        f"({found}): compile it with --target cuda on the machine with the GPU"
    )


def _reason_of_cpu(manifest: Manifest) -> str | None:
    if not _is_here(manifest):
        return (
            f"it is compiled for {manifest.arch} {manifest.system}, and this machine is "
            f"{cpu.architecture()} {cpu.system()}: compile it for this machine"
        )
    missing = _missing(manifest)
    if missing:
        return (
            f"it needs {', '.join(missing)}, which this CPU ({cpu.name()}) does not have: compile "
            "it for this machine, or for a lesser target such as x86-64-v2"
        )
    return None


def _is_here(manifest: Manifest) -> bool:
    return (manifest.arch, manifest.system) == (cpu.architecture(), cpu.system())


def _missing(manifest: Manifest) -> list[str]:
    return sorted(set(manifest.cpu_features) - cpu.features())


def _rank(manifest: Manifest) -> tuple[int, bool, bool, int]:
    """Order targets that a CPU runs: by the width of their vectors, then by all that they use.

    Those that a GPU runs: by the architecture.
    """
    features = manifest.cpu_features
    arch = int(manifest.gpu_arch.removeprefix("sm_") or 0)
    return arch, "avx512f" in features, "avx2" in features, len(features)
