"""A target with everything worked out that a compilation needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ferplus_tvm.errors import GpuError
from ferplus_tvm.host import cpu, gpu
from ferplus_tvm.targets.gpus import Gpu
from ferplus_tvm.targets.triples import arch_of, is_host, system_of

Precision = Literal["float32", "tf32", "float16"]
"""How GEMMs are computed: in float32, or by tensor cores in TF32 or fp16, summed in float32."""

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "tf32": 3e-3, "float16": 3e-3}
"""How far scores may be off the reference, relative to the largest one."""


@dataclass(frozen=True)
class VectorUnit:
    """The vector registers that a kernel's tiles have to fit, and their arithmetic.

    Attributes
    ----------
    lanes
        float32 values in a register.
    registers
        Vector registers that the instruction set names.
    per_cycle
        Fused multiply-adds of whole registers that a core starts in a clock cycle.
    fp16
        Whether there are instructions that widen fp16 to float32.
    """

    lanes: int
    registers: int
    per_cycle: int = 2
    fp16: bool = False


# The widest unit that the features allow; the first match wins.
_VECTOR_UNITS = (
    ("avx512f", VectorUnit(lanes=16, registers=32, fp16=True)),
    ("avx2", VectorUnit(lanes=8, registers=16)),
    ("avx", VectorUnit(lanes=8, registers=16)),
    ("neon", VectorUnit(lanes=4, registers=32, fp16=True)),
)
_PLAIN = VectorUnit(lanes=4, registers=16)
# CPUs that split a register of so many floats in two (double-pumped), or have one FMA unit for it.
_ONE_PER_CYCLE = frozenset({("znver4", 16), ("cortex-a72", 4)})


@dataclass(frozen=True)
class ResolvedTarget:
    """A target that is ready to compile for.

    Attributes
    ----------
    name
        The name that was asked for, or for ``native`` this CPU's name in LLVM.
    config
        The dictionary that TVM's ``Target`` is made from.
    triple
        The LLVM target triple, for example ``x86_64-unknown-linux-gnu``.
    features
        The CPU features that are required, by LLVM's names, as far as `ferplus_tvm.host.cpu` can
        tell them apart.
    gpu
        The GPU that computes, or None; triple and features are then those of its host CPU.
    precision
        How GEMMs are computed; on a CPU always in float32.
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
    def system(self) -> str:
        """The operating system: ``linux``, ``darwin`` or ``windows``."""
        return system_of(self.triple)

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
    def is_host(self) -> bool:
        """Whether architecture and system are this machine's, whatever the CPU features."""
        return is_host(self.triple)

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run what is compiled for the target."""
        return (
            self.loadable
            and self.is_host
            and self.features <= cpu.features()
            and (self.gpu is None or _has_gpu(self.gpu.arch))
        )

    def tvm_target(self) -> Any:
        """Return the ``tvm.target.Target``."""
        from tvm.target import Target

        return Target(self.config)


def _has_gpu(arch: str) -> bool:
    try:
        return any(device.runs(arch) for device in gpu.devices())
    except GpuError:
        return False
