"""Where figures come from: CPU, system and versions; no host name, no path, no user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ferplus_tvm.bench.timing import gpu_card, load, roofline
from ferplus_tvm.host import cpu

_PACKAGES = (
    "ferplus_tvm",
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "Pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
)


def record(gpu: int | None = None) -> dict[str, Any]:
    """Return what belongs beside a figure; ``gpu`` is the number of the GPU measured on."""
    import psutil

    return {
        "cpu": cpu.name(),
        "features": sorted(cpu.features()),
        "caches": roofline.caches(),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(cpu.allowed()),
        "cpu_quota": cpu.cgroup_quota(),
        "megahertz": _megahertz(),
        "memory": psutil.virtual_memory().total,
        "load_average": load.average(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
        **({} if gpu is None else {"gpu": gpu_card.record(gpu)}),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _megahertz() -> float | None:
    import psutil

    try:
        now = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError, RuntimeError):
        return None
    return round(now.current) if now else None


def _commit() -> str | None:
    """Return the commit of a checkout that this package runs from, or None.

    It ends in ``-dirty`` where a file is not as the commit has it.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    asked = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(
            [*asked, "--exclude=*"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
