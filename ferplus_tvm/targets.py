"""Named targets: what to compile for, and the vector unit that its kernels are shaped by."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from ferplus_tvm.errors import GpuError, TargetError, last_line
from ferplus_tvm.host import cpu, gpu

Precision = Literal["float32", "tf32", "float16"]
"""How products are computed: by float32 arithmetic, or by tensor cores on numbers of 11 bits."""

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "tf32": 3e-3, "float16": 3e-3}
"""How far scores may be off the reference, relative to the largest one."""


@dataclass(frozen=True)
class NamedTarget:
    """A target that can be asked for by name."""

    name: str
    arch: str
    llvm_cpu: str
    hardware: str
    system: str = "linux"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def triple(self) -> str:
        """The LLVM target triple."""
        if self.system == "darwin":
            return "arm64-apple-macosx11.0.0"
        return f"{self.arch}-unknown-linux-gnu"


NAMED = {
    target.name: target
    for target in (
        NamedTarget("x86-64-v2", "x86_64", "x86-64-v2", "any x86-64 since about 2009 (SSE4.2)"),
        NamedTarget("x86-64-v3", "x86_64", "x86-64-v3", "AVX2: Intel Haswell, AMD Zen, and later"),
        NamedTarget("x86-64-v4", "x86_64", "x86-64-v4", "AVX-512: Intel Skylake-SP, AMD Zen 4"),
        NamedTarget("skylake-avx512", "x86_64", "skylake-avx512", "Intel Xeon Scalable, 1st gen"),
        NamedTarget("icelake-server", "x86_64", "icelake-server", "Intel Xeon Scalable, 3rd gen"),
        NamedTarget("sapphirerapids", "x86_64", "sapphirerapids", "Intel Xeon Scalable, 4th gen"),
        NamedTarget("emeraldrapids", "x86_64", "emeraldrapids", "Intel Xeon Scalable, 5th gen"),
        NamedTarget("graniterapids", "x86_64", "graniterapids", "Intel Xeon 6 with P-cores"),
        NamedTarget("znver3", "x86_64", "znver3", "AMD Zen 3: EPYC 7003, Ryzen 5000"),
        NamedTarget("znver4", "x86_64", "znver4", "AMD Zen 4: EPYC 9004, Ryzen 7000"),
        NamedTarget("znver5", "x86_64", "znver5", "AMD Zen 5: EPYC 9005, Ryzen 9000"),
        NamedTarget("aarch64", "aarch64", "generic", "any 64-bit Arm Linux machine (NEON)"),
        NamedTarget("neoverse-n1", "aarch64", "neoverse-n1", "AWS Graviton 2, Ampere Altra"),
        NamedTarget("neoverse-v1", "aarch64", "neoverse-v1", "AWS Graviton 3"),
        NamedTarget("neoverse-v2", "aarch64", "neoverse-v2", "AWS Graviton 4, NVIDIA Grace"),
        NamedTarget("cortex-a72", "aarch64", "cortex-a72", "Raspberry Pi 4"),
        NamedTarget("cortex-a76", "aarch64", "cortex-a76", "Raspberry Pi 5"),
        NamedTarget("apple-m1", "aarch64", "apple-m1", "Apple M1 and later, macOS", "darwin"),
        NamedTarget(
            "riscv64",
            "riscv64",
            "generic-rv64",
            "64-bit RISC-V Linux (RV64GC), as an object file",
            options=(("mabi", "lp64d"), ("mattr", ["+m", "+a", "+f", "+d", "+c"])),
        ),
    )
}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA architecture, as far as kernels are shaped by it.

    arch
        what CUDA's compilers call it.
    sms
        streaming multiprocessors of its largest usual card.
    fma_per_clock
        float32 multiply-adds that one of them starts in a cycle.
    tensor_fma_per_clock
        the same of its tensor cores, in words of 32 bits: TF32 numbers, or pairs of halves, by
        NVIDIA's figures for dense products summed in float32.  ``mma.sync``, which the kernels
        use, reaches some 60 % of it from Hopper on.
    shared_bytes
        of shared memory of a processor.
    """

    arch: str
    hardware: str
    sms: int
    fma_per_clock: int
    tensor_fma_per_clock: int
    shared_bytes: int


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; processors by
# NVIDIA's architecture white papers.  Earlier ones have no asynchronous copies and no TF32.
GPUS = {
    each.arch: each
    for each in (
        Gpu("sm_80", "NVIDIA A100, A30", 108, 64, 512, 164 << 10),
        Gpu("sm_86", "NVIDIA A10, A40, RTX 30", 84, 128, 256, 100 << 10),
        Gpu("sm_87", "NVIDIA Jetson Orin", 16, 128, 128, 164 << 10),
        Gpu("sm_89", "NVIDIA L4, L40, RTX 40", 128, 128, 256, 100 << 10),
        Gpu("sm_90", "NVIDIA H100, H200, GH200", 132, 128, 1024, 228 << 10),
        Gpu("sm_100", "NVIDIA B200, GB200", 148, 128, 2048, 228 << 10),
        Gpu("sm_103", "NVIDIA B300, GB300", 148, 128, 2048, 228 << 10),
        Gpu("sm_120", "NVIDIA RTX 50, RTX PRO Blackwell", 170, 128, 128, 100 << 10),
    )
}
"""The GPU targets: ``cuda/sm_90`` is that of ``GPUS["sm_90"]``."""


@dataclass(frozen=True)
class VectorUnit:
    """The registers that a kernel's tiles have to fit, and what is done with them in a cycle.

    lanes
        float32 values in one register.
    registers
        how many of them the instruction set names.
    per_cycle
        fused multiply-adds of whole registers that a core starts in a cycle.
    fp16
        whether there are instructions that widen float16 to float32.
    """

    lanes: int
    registers: int
    per_cycle: int = 2
    fp16: bool = False


# The widest one that the features allow; first match wins.
_VECTOR_UNITS = (
    ("avx512f", VectorUnit(lanes=16, registers=32, fp16=True)),
    ("avx2", VectorUnit(lanes=8, registers=16)),
    ("avx", VectorUnit(lanes=8, registers=16)),
    ("neon", VectorUnit(lanes=4, registers=32, fp16=True)),
)
_PLAIN = VectorUnit(lanes=4, registers=16)
# CPUs that take a register of so many floats in two halves, or have one unit for it.
_ONE_PER_CYCLE = frozenset({("znver4", 16), ("cortex-a72", 4)})


@dataclass(frozen=True)
class ResolvedTarget:
    """A target, worked out: ready to compile for.

    name
        what was asked for, or for ``native`` this CPU's name in LLVM.
    config
        the dictionary that TVM's ``Target`` is made from.
    triple
        the LLVM target triple, for example ``x86_64-unknown-linux-gnu``.
    features
        what the CPU must offer, by LLVM's names, as far as `host.cpu` can tell them apart.
    gpu
        the GPU that computes, or None; triple and features are then those of the CPU beside it.
    precision
        how it does; of a CPU float32.
    """

    name: str
    config: dict[str, Any]
    triple: str
    features: frozenset[str]
    gpu: Gpu | None = None
    precision: Precision = "float32"

    @property
    def log(self) -> str:
        """The name of its tuning log, a folder: each precision has its own."""
        return self.name if self.precision == "float32" else f"{self.name}-{self.precision}"

    @property
    def arch(self) -> str:
        """The architecture, as `ferplus_tvm.host.cpu.architecture` spells it."""
        return arch_of(self.triple)

    @property
    def vector_unit(self) -> VectorUnit:
        """The vector unit that kernels are shaped for."""
        unit = next((unit for feature, unit in _VECTOR_UNITS if feature in self.features), _PLAIN)
        if (self.config.get("mcpu"), unit.lanes) in _ONE_PER_CYCLE:
            unit = replace(unit, per_cycle=1)
        return replace(unit, fp16=unit.fp16 or "f16c" in self.features)

    @property
    def loadable(self) -> bool:
        """Whether there is a ``libtvm_runtime`` that loads libraries; otherwise objects are made.

        TVM's wheels are for x86-64 and aarch64.
        """
        return self.arch in ("x86_64", "aarch64")

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run what is compiled for the target."""
        return (
            self.loadable
            and self.arch == cpu.architecture()
            and system_of(self.triple) == cpu.system()
            and self.features <= cpu.features()
            and (self.gpu is None or _has_gpu(self.gpu.arch))
        )

    def tvm_target(self) -> Any:
        """Return the ``tvm.target.Target``."""
        from tvm.target import Target

        return Target(self.config)


def resolve(target: str | dict[str, Any] = "native") -> ResolvedTarget:
    """Work out a target from ``native``, ``cuda``, a name, or TVM's JSON (text or dictionary).

    Names are those of `NAMED`, and of `GPUS` behind ``cuda/``; ``cuda`` is this machine's GPU.

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
        try:
            config = json.loads(text)
        except json.JSONDecodeError as error:
            raise TargetError(
                f"the target {text!r} is not valid JSON ({error}): expected for example "
                '\'{"kind": "llvm", "mcpu": "znver4"}\''
            ) from None
        return _from_config("custom", config)
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
    if text == _llvm_cpu():  # this machine's CPU has a name that is not among them
        return _native()
    close = difflib.get_close_matches(text, ["native", *NAMED, *_gpu_names()], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise TargetError(
        f"there is no target named {text!r}: {hint}'ferplus-tvm targets' lists the names, and "
        'TVM\'s JSON works too, as in \'{"kind": "llvm", "mcpu": "znver4"}\''
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


def _llvm_cpu() -> str:
    """Return LLVM's name of this machine's CPU."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


def _native() -> ResolvedTarget:
    llvm_cpu = _llvm_cpu()
    config: dict[str, Any] = {"kind": "llvm", "mcpu": llvm_cpu, "mtriple": _host_triple()}
    # A virtual machine may hide features that the CPU's name promises: switch those off.
    promised = _from_config(llvm_cpu, config).features
    hidden = sorted(promised - cpu.features())
    if hidden:
        config["mattr"] = [f"-{feature}" for feature in hidden]
    return _from_config(llvm_cpu, config)


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


def gpu_target_of(device: gpu.Device) -> str | None:
    """Return the architecture to compile for a GPU for, or None if there is no target for it."""
    able = [arch for arch in GPUS if device.runs(arch)]
    return max(able, key=gpu.capability_of, default=None)


def _has_gpu(arch: str) -> bool:
    try:
        return any(device.runs(arch) for device in gpu.devices())
    except GpuError:
        return False


def _gpu_target(arch: str) -> ResolvedTarget:
    if arch not in GPUS:
        close = difflib.get_close_matches(arch, GPUS, n=1)
        hint = f"did you mean 'cuda/{close[0]}'? " if close else ""
        raise TargetError(
            f"there is no GPU target cuda/{arch}: {hint}expected cuda/ and one of {', '.join(GPUS)}"
        )
    return _from_cuda_config(f"cuda/{arch}", {"kind": "cuda", "arch": arch})


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


def _from_config(name: str, config: dict[str, Any]) -> ResolvedTarget:
    from tvm.target import Target, codegen

    kind = config.get("kind")
    if kind == "cuda":
        return _from_cuda_config(name, config)
    if kind != "llvm":
        raise TargetError(
            f"targets of kind {kind!r} are not supported: expected kind 'llvm' (a CPU) or 'cuda'"
        )
    config = {"mtriple": _host_triple(), **config}
    triple = str(config["mtriple"])
    try:
        known = {str(arch) for arch in codegen.llvm_get_targets()}
        arch = arch_of(triple)
        if arch not in known:
            raise TargetError(
                f"LLVM here cannot generate code for {arch!r} (triple {triple!r}): "
                f"expected one of {', '.join(sorted(known))}"
            )
        llvm_cpu = str(config.get("mcpu", "generic"))
        # Not asked of its list of CPUs, which leaves out aliases such as apple-m1.
        if not codegen.llvm_is_valid_cpu(llvm_cpu, triple):
            raise TargetError(
                f"LLVM does not know the CPU {llvm_cpu!r} for {arch}: "
                "'ferplus-tvm targets' lists names that work"
            )
        target = Target(config)
        offered = {str(feature) for feature in codegen.llvm_get_cpu_features(target)}
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
    needed = frozenset(offered) & cpu.known_features(arch)
    return ResolvedTarget(name, config, triple, needed)


def _host_triple() -> str:
    from tvm.target import codegen

    return str(codegen.llvm_get_system_triple())


def arch_of(triple: str) -> str:
    """Return the architecture of a triple, as `ferplus_tvm.host.cpu.architecture` spells it."""
    arch = triple.split("-", 1)[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)


def system_of(triple: str) -> str:
    """Return the operating system of a triple: ``linux``, ``darwin`` or ``windows``."""
    for system in ("linux", "darwin", "windows"):
        if system in triple or (system == "darwin" and "macos" in triple):
            return system
    return triple.split("-")[-1]
