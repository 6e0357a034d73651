"""The NVIDIA GPU that is measured on: its name, its clock, and what it could do at most."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

from ferplus_tvm import targets
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench.timing.layers import flops_per_face
from ferplus_tvm.host import gpu

# CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT and CU_DEVICE_ATTRIBUTE_CLOCK_RATE
_SMS, _KILOHERTZ = 16, 13


def record(number: int) -> dict[str, Any]:
    """Return what belongs beside a figure: name, driver, clocks and power."""
    return {
        "name": gpu.device(number).name,
        "driver": _nvidia_smi("driver_version"),
        "clock_and_power": _nvidia_smi("clocks.max.sm,clocks.sm,power.limit,pstate"),
    }


def peak_faces_per_second(manifest: Manifest, number: int) -> float | None:
    """Return how many faces per second the card could compute at its highest clock.

    That is by its float32 units, or by its tensor cores where the library's precision uses them,
    all of them busy with the layers computed directly; None where the driver tells no clock.
    """
    kind = targets.GPUS[manifest.gpu_arch]
    rate = kind.fma_per_clock if manifest.precision == "float32" else kind.tensor_fma_per_clock
    rate *= 2 if manifest.precision == "float16" else 1
    hertz = 1e3 * _attribute(_KILOHERTZ, number)
    peak = 2.0 * rate * _attribute(_SMS, number) * hertz / flops_per_face(manifest)
    return peak or None


def _attribute(which: int, number: int) -> int:
    value = ctypes.c_int()
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, number)
    return value.value


def _nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
