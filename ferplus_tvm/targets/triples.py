"""LLVM's target triples, such as ``x86_64-unknown-linux-gnu``, taken apart."""

from __future__ import annotations

from ferplus_tvm.host import cpu


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


def is_host(triple: str) -> bool:
    """Whether architecture and system of a triple are this machine's."""
    return (arch_of(triple), system_of(triple)) == (cpu.architecture(), cpu.system())
