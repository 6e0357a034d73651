"""The NVIDIA GPU architectures that can be compiled for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU architecture, as far as kernels are shaped by it.

    Attributes
    ----------
    arch
        The name that CUDA's compilers have for it, for example ``sm_90``.
    hardware
        Cards that have it.
    sms
        Streaming multiprocessors (SMs) of its largest usual card.
    fma_per_clock
        float32 fused multiply-adds that an SM starts in a clock cycle.
    tensor_fma_per_clock
        TF32 fused multiply-adds that the tensor cores of an SM start in a clock cycle, by NVIDIA's
        figures for dense GEMMs that are summed in float32; fp16 ones are twice as many.  The
        kernels use ``mma.sync``, which reaches some 60 % of it from Hopper on.
    shared_bytes
        Bytes of shared memory of an SM.
    """

    arch: str
    hardware: str
    sms: int
    fma_per_clock: int
    tensor_fma_per_clock: int
    shared_bytes: int


# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; SMs by NVIDIA's
# architecture white papers.  Earlier architectures have no asynchronous copies and no TF32.
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
"""The GPU targets by architecture: ``GPUS["sm_90"]`` is that of ``cuda/sm_90``."""
