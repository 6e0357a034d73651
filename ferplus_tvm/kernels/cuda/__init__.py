"""Kernels for NVIDIA GPUs: templates in CUDA C++, and what instantiates and launches them.

Maps are channels last, without halos; the stored channels are a multiple of `CHANNELS`, so that
16 bytes hold channels of one pixel.  Activations are stored as the precision says, sums and scores
are float32.
"""

from __future__ import annotations

from ferplus_tvm.targets import Precision

CHANNELS = 8
"""What the stored channels are a multiple of."""


def activation_type(precision: Precision) -> str:
    """Return how a map between two kernels is stored."""
    return "float16" if precision == "float16" else "float32"


def store(precision: Precision) -> str:
    """Return the name that `numbers.cuh` has for it."""
    names = {"float32": "kFloat32", "tf32": "kTf32", "float16": "kHalf"}
    return f"ferplus::Store::{names[precision]}"
