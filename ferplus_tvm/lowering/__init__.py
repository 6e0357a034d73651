"""Relax to Relax: recognise the layers, choose a kernel for each, lay out its weights."""

from __future__ import annotations

from collections.abc import Sequence

from ferplus_tvm.lowering import cuda, place
from ferplus_tvm.lowering.layers import Layer
from ferplus_tvm.lowering.place import Placed
from ferplus_tvm.lowering.walk import Record
from ferplus_tvm.targets import ResolvedTarget


def place_kernels(
    layers: Sequence[Layer],
    batch_sizes: Sequence[int],
    target: ResolvedTarget,
    record: Record,
) -> Placed:
    """Write one function per batch size for a target; see `place.place` and `cuda.place`."""
    if target.gpu is not None:
        return cuda.place(layers, batch_sizes, target.gpu, target.precision, record)
    return place.place(layers, batch_sizes, target.vector_unit, record)
