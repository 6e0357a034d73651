"""What to compile for: named CPUs and GPUs, and the hardware that kernels are shaped by."""

from ferplus_tvm.targets.gpus import GPUS, Gpu
from ferplus_tvm.targets.named import NAMED, NamedTarget
from ferplus_tvm.targets.parse import detect, gpu_target_of, resolve
from ferplus_tvm.targets.resolved import TOLERANCE, Precision, ResolvedTarget, VectorUnit

__all__ = [
    "GPUS",
    "NAMED",
    "TOLERANCE",
    "Gpu",
    "NamedTarget",
    "Precision",
    "ResolvedTarget",
    "VectorUnit",
    "detect",
    "gpu_target_of",
    "resolve",
]
