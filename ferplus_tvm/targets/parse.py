"""From what a user writes, such as ``znver4`` or TVM's JSON, to a resolved target."""

from __future__ import annotations

import difflib
import json
from typing import Any

from ferplus_tvm.errors import GpuError, TargetError, last_line
from ferplus_tvm.host import cpu, gpu
from ferplus_tvm.targets.gpus import GPUS
from ferplus_tvm.targets.named import NAMED
from ferplus_tvm.targets.resolved import ResolvedTarget
from ferplus_tvm.targets.triples import arch_of


def resolve(target: str | dict[str, Any] = "native") -> ResolvedTarget:
    """Work out a target.

    Parameters
    ----------
    target
        ``"native"`` for this machine's CPU, or its name in LLVM; ``"cuda"`` for this machine's
        GPU; a name of `NAMED`, or one of `GPUS` as in ``"cuda/sm_90"``; or TVM's description of a
        target, as JSON text or a dictionary.

    Raises
    ------
    TargetError
        For an unknown name, JSON that is not a target, a CPU that LLVM does not know, or a kind
        of device that is not supported.
    """
    if isinstance(target, dict):
        return _from_config("custom", target)
    text = target.strip()
    if text.startswith("{"):
        return _from_config("custom", _read_json(text))
    if text == "native":
        return _native()
    if text == "cuda":
        return _gpu_target(_gpu_here())
    if text.startswith("cuda/"):
        return _gpu_target(text.removeprefix("cuda/"))
    if text in NAMED:
        named = NAMED[text]
        config = {"kind": "llvm", "mcpu": named.llvm_cpu, "mtriple": named.triple}
        return _from_config(named.name, config | dict(named.options))
    if text == _llvm_cpu():  # this machine's CPU has a name in LLVM that `NAMED` lacks
        return _native()
    raise TargetError(
        f"there is no target named {text!r}: {_hint(text, ['native', *NAMED, *_gpu_names()])}"
        "'ferplus-tvm targets' lists the names, and TVM's JSON works too, as in "
        '\'{"kind": "llvm", "mcpu": "znver4"}\''
    )


def detect() -> tuple[ResolvedTarget, list[str]]:
    """Return this machine as a target, and the names whose code it runs, the best first.

    The best is the named one that is this CPU itself, or otherwise the one with the most features;
    those of GPUs come last.
    """
    native = _native()
    able = [resolved for resolved in map(resolve, NAMED) if resolved.runs_here]
    able.sort(key=lambda each: (each.name == native.name, len(each.features)), reverse=True)
    gpus = [name for name in _gpu_names()[1:] if resolve(name).runs_here]
    return native, [each.name for each in able] + gpus


def gpu_target_of(device: gpu.Device) -> str | None:
    """Return the architecture to compile for a GPU for, or None if there is no target for it."""
    able = [arch for arch in GPUS if device.runs(arch)]
    return max(able, key=gpu.capability_of, default=None)


def _read_json(text: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise TargetError(
            f"the target {text!r} is not valid JSON ({error}): expected for example "
            '\'{"kind": "llvm", "mcpu": "znver4"}\''
        ) from None
    return config


def _hint(text: str, names: list[str]) -> str:
    close = difflib.get_close_matches(text, names, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _native() -> ResolvedTarget:
    llvm_cpu = _llvm_cpu()
    config: dict[str, Any] = {"kind": "llvm", "mcpu": llvm_cpu, "mtriple": _host_triple()}
    # A virtual machine may hide features that the CPU's name promises: switch those off.
    promised = _from_config(llvm_cpu, config).features
    hidden = sorted(promised - cpu.features())
    if hidden:
        config["mattr"] = [f"-{feature}" for feature in hidden]
    return _from_config(llvm_cpu, config)


def _llvm_cpu() -> str:
    """Return LLVM's name of this machine's CPU."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


def _host_triple() -> str:
    from tvm.target import codegen

    return str(codegen.llvm_get_system_triple())


def _from_config(name: str, config: dict[str, Any]) -> ResolvedTarget:
    kind = config.get("kind")
    if kind == "cuda":
        return _from_cuda_config(name, config)
    if kind != "llvm":
        raise TargetError(
            f"targets of kind {kind!r} are not supported: expected kind 'llvm' (a CPU) or 'cuda'"
        )
    config = {"mtriple": _host_triple(), **config}
    triple = str(config["mtriple"])
    arch = arch_of(triple)
    try:
        offered = _cpu_features(config)
    except TargetError:
        raise
    except Exception as error:  # TVM raises several kinds for a malformed dictionary
        raise TargetError(f"TVM does not accept the target {config}: {last_line(error)}") from error
    # LLVM only grumbles on stderr about a feature that it does not know.
    for attribute in config.get("mattr", []):
        if not attribute.startswith("-") and attribute.removeprefix("+") not in offered:
            raise TargetError(
                f"the target asks for the feature {attribute!r}, which LLVM does not know for "
                f"{arch} or which the rest of its mattr switches off: expected for example '+avx2'"
            )
    return ResolvedTarget(name, config, triple, offered & cpu.known_features(arch))


def _cpu_features(config: dict[str, Any]) -> frozenset[str]:
    """Return the features that LLVM says a CPU target has."""
    from tvm.target import Target, codegen

    triple = str(config["mtriple"])
    arch = arch_of(triple)
    known = {str(each) for each in codegen.llvm_get_targets()}
    if arch not in known:
        raise TargetError(
            f"LLVM here cannot generate code for {arch!r} (triple {triple!r}): "
            f"expected one of {', '.join(sorted(known))}"
        )
    llvm_cpu = str(config.get("mcpu", "generic"))
    # LLVM's list of CPUs leaves out aliases such as apple-m1, so it is not what is asked.
    if not codegen.llvm_is_valid_cpu(llvm_cpu, triple):
        raise TargetError(
            f"LLVM does not know the CPU {llvm_cpu!r} for {arch}: "
            "'ferplus-tvm targets' lists names that work"
        )
    return frozenset(str(feature) for feature in codegen.llvm_get_cpu_features(Target(config)))


def _gpu_names() -> list[str]:
    return ["cuda", *(f"cuda/{arch}" for arch in GPUS)]


def _gpu_here() -> str:
    """Return the target's architecture of the first GPU of this machine."""
    try:
        found = gpu.devices()[0]
    except GpuError as error:
        raise TargetError(
            f"the target cuda is this machine's GPU, but {error}; or name the GPU to compile for, "
            "as in cuda/sm_90"
        ) from None
    arch = gpu_target_of(found)
    if arch is None:
        raise TargetError(
            f"the GPU here ({found.name}) has the architecture {found.arch}: expected one that "
            f"runs code for {', '.join(GPUS)}"
        )
    return arch


def _gpu_target(arch: str) -> ResolvedTarget:
    name = f"cuda/{arch}"
    if arch not in GPUS:
        raise TargetError(
            f"there is no GPU target {name}: {_hint(name, _gpu_names()[1:])}expected cuda/ and one "
            f"of {', '.join(GPUS)}"
        )
    return _from_cuda_config(name, {"kind": "cuda", "arch": arch})


def _from_cuda_config(name: str, config: dict[str, Any]) -> ResolvedTarget:
    """Work out a GPU target; its host is a plain CPU of this machine's kind, unless it says."""
    from tvm.target import Target

    arch = config.get("arch")
    if arch not in GPUS:
        raise TargetError(
            f"the target's arch is {arch!r}: expected one of {', '.join(GPUS)}, as in "
            '\'{"kind": "cuda", "arch": "sm_90"}\''
        )
    host = _from_config(name, config.get("host") or {"kind": "llvm"})
    if host.gpu is not None:
        raise TargetError("the target's host is a GPU: expected a target of kind 'llvm'")
    config = {
        "max_num_threads": 1024,
        "thread_warp_size": 32,
        "max_shared_memory_per_block": 48 << 10,
        **config,
        "host": host.config,
    }
    try:
        Target(config)
    except Exception as error:  # TVM raises several kinds for a malformed dictionary
        raise TargetError(f"TVM does not accept the target {config}: {last_line(error)}") from error
    return ResolvedTarget(name, config, host.triple, host.features, GPUS[arch])
