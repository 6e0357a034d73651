"""Each kernel inside the network: its time, and its time at the machine's roofline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ferplus_tvm.artifact.manifest import Kernel, Manifest, Tensor
from ferplus_tvm.bench.timing.roofline import Roofline


@dataclass(frozen=True)
class LayerTime:
    """A kernel's time in the network, one call after the other.

    Attributes
    ----------
    layer
        The layer's name, with that of a pooling that its kernel includes.
    algorithm
        The kernel's algorithm.
    seconds
        The median of the calls.
    share
        Its share of the sum over all kernels, 0..1.
    flops
        Floating point operations of the layer computed directly, whatever the kernel does.
    nbytes
        The bytes of weights, input and output.
    roofline
        The seconds that the machine needs at least: for the multiply-adds of the algorithm, or for
        reading the weights, whichever is longer; 0 for a layer without weights, such as a pooling.
    """

    layer: str
    algorithm: str
    seconds: float
    share: float
    flops: int
    nbytes: int
    roofline: float


@dataclass(frozen=True)
class LayerTimes:
    """The layers of one batch size and number of threads.

    Attributes
    ----------
    batch, threads
        Of the calls.
    of_roofline
        The sum of the layers' times at the roofline over the sum of their times, 0..1.
    layers
        In the order of the network.
    """

    batch: int
    threads: int
    of_roofline: float
    layers: tuple[LayerTime, ...]


def of_runs(
    manifest: Manifest, batch: int, runs: Sequence[Sequence[float]], roofline: Roofline
) -> LayerTimes:
    """Return the layers of a batch size, from the times of all kernels in each call."""
    kernels = [kernel for kernel in manifest.kernels if kernel.batch == batch]
    times = [statistics.median(column) for column in zip(*runs, strict=True)]
    tensors = [manifest.tensors[at] for at in manifest.functions[batch].weights]
    reading = roofline.reading(sum(tensor.nbytes for tensor in tensors))
    found = []
    for kernel, seconds in zip(kernels, times, strict=True):
        weights = _weight_bytes(kernel, tensors)
        computing = kernel.executed_flops / roofline.all_threads if weights else 0.0
        found.append(
            LayerTime(
                kernel.layer + (f" + {kernel.fused}" if kernel.fused else ""),
                kernel.algorithm,
                seconds,
                seconds / sum(times),
                kernel.flops,
                weights + kernel.activation_bytes,
                max(computing, weights / reading),
            )
        )
    share = sum(layer.roofline for layer in found) / sum(times)
    return LayerTimes(batch, roofline.threads, share, tuple(found))


def flops_per_face(manifest: Manifest) -> float:
    """Return the floating point operations of the layers with weights, computed directly."""
    batch = manifest.batch_sizes[0]
    tensors = [manifest.tensors[at] for at in manifest.functions[batch].weights]
    own = (kernel for kernel in manifest.kernels if kernel.batch == batch)
    return sum(kernel.flops for kernel in own if _weight_bytes(kernel, tensors)) / batch


def _weight_bytes(kernel: Kernel, tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor.name.startswith(f"{kernel.layer}."))
