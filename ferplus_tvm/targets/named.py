"""The CPU targets that can be asked for by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NamedTarget:
    """A CPU target that can be asked for by name.

    Attributes
    ----------
    name
        The name.
    arch
        The architecture, as `ferplus_tvm.host.cpu.architecture` spells it.
    llvm_cpu
        LLVM's name of the CPU.
    hardware
        Machines that have it.
    system
        The operating system: ``linux`` or ``darwin``.
    options
        Further keys and values of TVM's ``Target``.
    """

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
"""The CPU targets by name."""
