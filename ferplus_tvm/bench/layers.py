"""Each kernel inside the network: its time, and what this machine would need for it at least."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ferplus_tvm.artifact.manifest import Kernel, Manifest
from ferplus_tvm.bench.limits import Limits


@dataclass(frozen=True)
class LayerTime:
    """A kernel's time in the network, one call after the other.

    seconds
        the median of the calls.
    share
        of the sum over all kernels, 0..1.
    flops
        of the layer computed directly, whatever the kernel does in its place.
    nbytes
        of weights, input and output.
    limit
        the seconds that the machine needs at least: for the multiply-adds that the algorithm has,
        or for reading the weights, whichever is longer; 0 where neither is known.
    """

    layer: str
    algorithm: str
    seconds: float
    share: float
    flops: float
    nbytes: int
    limit: float


def of_runs(
    manifest: Manifest, batch: int, runs: Sequence[Sequence[float]], limits: Limits
) -> list[LayerTime]:
    """Return the layers of a batch size in order, from the times of all kernels in each call."""
    kernels = [kernel for kernel in manifest.kernels if kernel.batch == batch]
    times = [statistics.median(column) for column in zip(*runs, strict=True)]
    tensors = [manifest.tensors[at] for at in manifest.functions[batch].weights]
    reading = limits.reading(sum(tensor.nbytes for tensor in tensors))
    found = []
    for kernel, seconds in zip(kernels, times, strict=True):
        own = (tensor.nbytes for tensor in tensors if tensor.name.startswith(f"{kernel.layer}."))
        weights = sum(own)
        direct, needed, moved = work(kernel)
        limit = max(needed / limits.all_threads, weights / reading)
        name = kernel.layer + (f" + {kernel.fused}" if kernel.fused else "")
        share = seconds / sum(times)
        found.append(
            LayerTime(name, kernel.algorithm, seconds, share, direct, weights + moved, limit)
        )
    return found


def of_limit(layers: Sequence[LayerTime]) -> float:
    """Return which share of what the machine can do the network reaches, 0..1."""
    return sum(layer.limit for layer in layers) / sum(layer.seconds for layer in layers)


def work(kernel: Kernel) -> tuple[float, float, int]:
    """Return a kernel's operations if computed directly, those it needs, and its maps' bytes.

    They are read from its name (``conv3x3_64x64_1to64_batch1``, ``dense_4096to1024_batch1``);
    FER+'s convolutions keep the size of the map.  Winograd's F(m,3) needs (m+2)^2 multiply-adds for
    m^2 outputs and a pair of channels, in place of 9 m^2.
    """
    conv = re.match(r"conv(\d+)x(\d+)_(\d+)x(\d+)_(\d+)to(\d+)", kernel.kernel)
    if conv:
        high, wide, height, width, inputs, outputs = map(int, conv.groups())
        channels = kernel.batch * inputs * outputs
        direct = 2.0 * channels * high * wide * height * width
        maps = kernel.batch * height * width
        moved = 4 * maps * (inputs + (outputs // 4 if "pooled" in kernel.kernel else outputs))
        winograd = re.search(r"F\((\d+),", kernel.algorithm)
        if winograd is None:
            return direct, direct, moved
        tile = int(winograd[1])
        tiles = math.ceil(height / tile) * math.ceil(width / tile)
        return direct, 2.0 * channels * tiles * (tile + 2) ** 2, moved
    dense = re.match(r"dense_(\d+)to(\d+)", kernel.kernel)
    if dense:
        inputs, outputs = map(int, dense.groups())
        direct = 2.0 * kernel.batch * inputs * outputs
        return direct, direct, 4 * kernel.batch * (inputs + outputs)
    return 0.0, 0.0, 0
