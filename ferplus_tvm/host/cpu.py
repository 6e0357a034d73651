"""The features of this machine's CPU, and how many CPUs this process may use.

Features have LLVM's names (``avx512f``, ``sse4.2``, ``neon``), so that those of a target and of the
machine can be compared.
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import sys
from pathlib import Path

# Names in Linux's /proc/cpuinfo, and LLVM's where they differ.
_LINUX_X86 = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
}
_LINUX_ARM = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "atomics": "lse",
    "crc32": "crc",
}
_NUMPY = {
    "SSE41": "sse4.1",
    "SSE42": "sse4.2",
    "FMA3": "fma",
    "ASIMD": "neon",
    "ASIMDDP": "dotprod",
    "ASIMDHP": "fullfp16",
    "AVX512_ICL": "avx512vnni",
}

_X86 = (
    "sse sse2 sse3 ssse3 sse4.1 sse4.2 popcnt avx avx2 fma f16c bmi bmi2 lzcnt movbe adx "
    "avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi avx512vbmi2 avx512vnni "
    "avx512bitalg avx512vpopcntdq avx512bf16 avx512fp16 avxvnni gfni vaes vpclmulqdq"
)
_ARM = "neon dotprod fullfp16 lse crc sve sve2 bf16 i8mm"

X86_FEATURES = frozenset(_X86.split())
"""The x86-64 features that a compiler may use in a kernel, by LLVM's names."""

ARM_FEATURES = frozenset(_ARM.split())
"""The aarch64 features that a compiler may use in a kernel, by LLVM's names."""


def architecture() -> str:
    """Return this machine's architecture by LLVM's name, such as ``x86_64`` or ``aarch64``."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def system() -> str:
    """Return this machine's operating system, such as ``linux``, ``darwin`` or ``windows``."""
    return {"win32": "windows"}.get(sys.platform, sys.platform)


def known_features(arch: str) -> frozenset[str]:
    """Return the features that this module can detect on an architecture."""
    return {"x86_64": X86_FEATURES, "aarch64": ARM_FEATURES}.get(arch, frozenset())


@functools.cache
def features() -> frozenset[str]:
    """Return the features of this CPU that a compiled kernel may need, by LLVM's names.

    They are read from ``/proc/cpuinfo`` on Linux, from ``sysctl`` on macOS, and from what numpy has
    detected on other systems.
    """
    if sys.platform == "linux":
        found = _linux_features()
    elif sys.platform == "darwin":
        found = _macos_features()
    else:
        found = _numpy_features()
    return frozenset(found) & known_features(architecture())


def _linux_features() -> set[str]:
    renamed = _LINUX_X86 if architecture() == "x86_64" else _LINUX_ARM
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return {renamed.get(word, word) for word in value.split()}
    return set()


def _macos_features() -> set[str]:
    import subprocess  # only macOS needs it, and it is slow to import

    # Every Apple M1 and later has these; sysctl spells them out, one by one.
    found = {"neon", "crc", "lse"} if architecture() == "aarch64" else set()
    names = {"FEAT_DotProd": "dotprod", "FEAT_FP16": "fullfp16", "FEAT_BF16": "bf16"}
    names |= {"FEAT_I8MM": "i8mm"}
    for name, feature in names.items():
        query = ["sysctl", "-n", f"hw.optional.arm.{name}"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == "1":
            found.add(feature)
    return found


def _numpy_features() -> set[str]:
    # numpy offers no public name for what it detected.
    detection = importlib.import_module("numpy._core._multiarray_umath")
    detected: dict[str, bool] = getattr(detection, "__cpu_features__", {})
    found = {_NUMPY.get(name, name.lower()) for name, present in detected.items() if present}
    # numpy before 2.4 does not detect these, and none detects adx.  CPUs with AVX2 and FMA have the
    # former, CPUs with AVX-512 also the latter.
    if {"avx2", "fma"} <= found:
        found |= {"bmi", "bmi2", "lzcnt", "movbe"}
    if "avx512f" in found:
        found.add("adx")
    return found


def name() -> str:
    """Return the CPU's model name, or its architecture where the system does not tell it."""
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or architecture()


def allowed() -> list[int]:
    """Return the numbers of the CPUs in this process's affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_threads() -> int:
    """Return how many threads to use, given the affinity mask and the cgroup's CPU quota.

    A quota of 2.5 CPUs gives 2, because a third thread would be throttled within an inference.
    """
    quota = cgroup_quota()
    count = len(allowed())
    return max(1, min(count, int(quota)) if quota is not None else count)


def cgroup_quota() -> float | None:
    """Return the cgroup's CPU quota in CPUs, or None where there is no quota.

    It is read from cgroup v2's ``cpu.max`` or v1's ``cpu.cfs_quota_us``, in every group from this
    process's up to the root.  The lowest counts.
    """
    limits = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            for folder in _upwards(Path("/sys/fs/cgroup"), path):
                fields = _read(folder / "cpu.max").split()
                if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit():
                    limits.append(int(fields[0]) / int(fields[1]))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(Path("/sys/fs/cgroup") / controllers, path):
                quota = _read(folder / "cpu.cfs_quota_us").strip()
                period = _read(folder / "cpu.cfs_period_us").strip()
                if quota.isdigit() and period.isdigit():
                    limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """Return ``root / path`` and its parents up to ``root``."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
