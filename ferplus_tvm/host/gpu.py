"""The NVIDIA GPUs of this machine, as the CUDA Driver API lists them.

The driver's library is called by `ctypes`.  This creates no CUDA context and needs neither CUDA's
runtime nor its toolkit.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from ferplus_tvm.errors import GpuError

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_TEGRA = {(8, 7), (8, 8), (10, 1), (11, 0)}  # compute capabilities of integrated GPUs
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Device:
    """An NVIDIA GPU.

    Attributes
    ----------
    index
        The number of the device, as in ``cuda:0``.
    name
        The driver's name of it, for example ``NVIDIA H100 80GB HBM3``.
    capability
        The compute capability as (major, minor), for example (9, 0).
    """

    index: int
    name: str
    capability: tuple[int, int]

    @property
    def arch(self) -> str:
        """The architecture as CUDA's compilers call it, for example ``sm_90``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    def runs(self, arch: str) -> bool:
        """Return whether this GPU runs machine code that was compiled for an architecture.

        It does if the major compute capability is the same and the minor one is not lower.  On
        Tegra both have to be the same (CUDA C++ Programming Guide, "Binary Compatibility").

        Parameters
        ----------
        arch
            As CUDA's compilers call it, for example ``sm_90``.
        """
        code = capability_of(arch)
        if code in _TEGRA or self.capability in _TEGRA:
            return self.capability == code
        return self.capability[0] == code[0] and self.capability[1] >= code[1]


def capability_of(arch: str) -> tuple[int, int]:
    """Return the compute capability of an architecture, (9, 0) for ``sm_90``."""
    number = int(arch.removeprefix("sm_"))
    return number // 10, number % 10


def devices() -> tuple[Device, ...]:
    """Return the GPUs that this process may use, in the driver's order.

    Raises
    ------
    GpuError
        If there is no driver, it cannot be initialized, or it lists no GPU.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        raise GpuError(
            f"no NVIDIA driver was found ({_DRIVER} cannot be loaded): install the GPU's driver"
        ) from None
    status = driver.cuInit(0)
    if status:
        raise GpuError(
            f"the NVIDIA driver does not start ({_error(driver, status)}): see that nvidia-smi "
            "lists the GPU, and that this process is not forked from one that has used it"
        )
    count = _number(driver, "cuDeviceGetCount")
    if count < 1:
        raise GpuError(
            "the NVIDIA driver shows no GPU to this process: see what nvidia-smi lists and what "
            "CUDA_VISIBLE_DEVICES says"
        )
    return tuple(_device(driver, index) for index in range(count))


def device(index: int) -> Device:
    """Return the GPU with a number.

    Parameters
    ----------
    index
        The number of the device, 0 for the first.

    Raises
    ------
    GpuError
        If there is no GPU with this number, or `devices` fails.
    """
    found = devices()
    if not 0 <= index < len(found):
        names = ", ".join(f"cuda:{each.index} ({each.name})" for each in found)
        raise GpuError(f"there is no GPU cuda:{index} on this machine: expected {names}")
    return found[index]


def _device(driver: ctypes.CDLL, index: int) -> Device:
    handle = _number(driver, "cuDeviceGet", index)
    name = ctypes.create_string_buffer(256)
    _expect(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, len(name), handle))
    major, minor = (
        _number(driver, "cuDeviceGetAttribute", attribute, handle) for attribute in _CAPABILITY
    )
    return Device(index, name.value.decode(errors="replace"), (major, minor))


def _number(driver: ctypes.CDLL, function: str, *arguments: int) -> int:
    found = ctypes.c_int()
    _expect(driver, function, getattr(driver, function)(ctypes.byref(found), *arguments))
    return found.value


def _expect(driver: ctypes.CDLL, function: str, status: int) -> None:
    if status:
        raise GpuError(
            f"the NVIDIA driver failed ({function}: {_error(driver, status)}): see what nvidia-smi "
            "says of the GPU"
        )


def _error(driver: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(name))
    return name.value.decode() if name.value else f"status {status}"
