"""Max pooling on a GPU: see max_pool.cuh."""

from __future__ import annotations

import math

from ferplus_tvm.kernels.cuda import activation_type
from ferplus_tvm.kernels.cuda.launch import Array, Kernel, instance
from ferplus_tvm.kernels.workloads import Pool
from ferplus_tvm.targets import Precision

_THREADS = 256


def kernel(w: Pool, precision: Precision) -> Kernel:
    """Return the launch for x (N,H,W,C) -> y (N,OH,OW,C)."""
    fields: dict[str, int | bool] = {
        "batch": w.batch,
        "height": w.height,
        "width": w.width,
        "channels": w.channels,
        "kernel_y": w.kernel[0],
        "kernel_x": w.kernel[1],
        "stride_y": w.stride[0],
        "stride_x": w.stride[1],
        "top": w.padding[0],
        "left": w.padding[1],
        "out_height": w.out_height,
        "out_width": w.out_width,
    }
    element = activation_type(precision)
    shape = (w.batch, w.out_height, w.out_width, w.channels)
    return Kernel(
        f"{w.name}_{element}",
        instance("max_pool", "MaxPool", fields),
        math.ceil(math.prod(shape) / _THREADS),
        _THREADS,
        (
            Array("x", (w.batch, w.height, w.width, w.channels), element),
            Array("y", shape, element),
        ),
    )
