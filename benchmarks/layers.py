"""Time per layer inside the network, and what the core could do at most.

    python benchmarks/layers.py ferplus.so [--threads 1] [--batch 1] [--calls 200]

Kernels are timed where they run, one call of the network after the other, so with their weights as
cold as they are in use.  GFLOP/s are those of a direct convolution, whatever the kernel does in its
place; their share of the peak exceeds 100 % where Winograd saves more than its transforms cost.
The peak is measured here, by fused multiply-adds in registers on as many threads, and so is the
batched matrix product of a Winograd layer, alone and warm, on one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
import tvm_ffi

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.kernels import conv2d, tensorir, winograd
from ferplus_tvm.manifest import Kernel
from ferplus_tvm.targets import ResolvedTarget

STEPS = 400_000


def peak(target: ResolvedTarget, threads: int) -> float:
    """Return the GFLOP/s of fused multiply-adds on registers, on all of ``threads`` together."""
    lanes = target.vector_unit.lanes
    unit, rows = tensorir.Vectors(lanes), 10
    with tensorir.function() as builder:
        x = tensorir.argument("x", (lanes,))
        y = tensorir.argument("y", (threads, rows, lanes))
        sums = tensorir.flat(y)
        with tensorir.parallel(threads) as task:
            tile = tensorir.RegisterTile(unit, rows, 1)
            with tensorir.serial(STEPS):
                tile.add(lambda row: x[row % lanes], lambda vector: unit.load(x, 0))
            for row in range(rows):
                unit.store(sums, tile.result(row, 0), (task * rows + row) * lanes)
    kernel = compiled(builder.get(), target)
    arrays = [aligned((lanes,)), aligned((threads, rows, lanes))]
    tensors = [tvm_ffi.from_dlpack(array) for array in arrays]
    seconds = fastest(lambda: kernel(*tensors), 7)
    return 2e-9 * STEPS * rows * lanes * threads / seconds


def product_share(w: conv2d.Workload, target: ResolvedTarget, one_core: float) -> str:
    """Return a line on the batched product of a Winograd layer, on one core."""
    config = winograd.Config.preset(w, target.vector_unit, 4)
    v_stride, m_stride = winograd.strides(w, config)
    elements = config.algorithm.side**2
    u_shape = (w.out_channels // config.panel, elements, w.in_channels, config.panel)
    kernel = compiled(winograd.define_products(w, config), target)
    shapes = [(elements * v_stride,), u_shape, (elements * m_stride,)]
    tensors = [tvm_ffi.from_dlpack(aligned(shape)) for shape in shapes]
    seconds = fastest(lambda: kernel(*tensors), 200)
    block = (v_stride - config.lanes) // w.in_channels
    rate = 2e-9 * elements * block * w.in_channels * w.out_channels / seconds
    shape = f"{elements} x {block} x {w.in_channels} x {w.out_channels}"
    tile = f"{config.rows} x {config.panel}"
    return f"  {shape:<22} tile {tile:<8} {rate:7.1f} GFLOP/s {rate / one_core:6.1%} of the peak"


def compiled(function: Any, target: ResolvedTarget) -> Callable[..., object]:
    """Compile one kernel."""
    with tensorir.pass_context():
        entry: Callable[..., object] = tvm.compile(function, target=target.tvm_target())["main"]
    return entry


def aligned(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ones at a multiple of 64 bytes."""
    size = int(np.prod(shape))
    whole = np.ones(size + 16, np.float32)
    start = (-whole.ctypes.data // 4) % 16
    return whole[start : start + size].reshape(shape)


def fastest(call: Callable[[], object], times: int) -> float:
    """Return the shortest time of a call: what the machine can do, undisturbed."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def direct_flops(kernel: Kernel) -> float:
    """Return a layer's operations as a direct convolution or a dense layer, by its kernel's name.

    FER+'s convolutions keep the size of the map, so that the name's is the output's.  Names are
    ``conv3x3_64x64_1to64_batch1`` or ``dense_4096to1024_batch1``.
    """
    kind, *rest = kernel.kernel.split("_")
    if kind.startswith("conv"):
        (high, wide), (height, width), (inputs, outputs) = (
            (int(number) for number in text.split(separator))
            for text, separator in zip(
                (kind.removeprefix("conv"), *rest[:2]), ("x", "x", "to"), strict=True
            )
        )
        return 2.0 * kernel.batch * high * wide * height * width * inputs * outputs
    if kind == "dense":
        inputs, outputs = (int(number) for number in rest[0].split("to"))
        return 2.0 * kernel.batch * inputs * outputs
    return 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()

    with fer.load(options.library, threads=options.threads) as engine:
        target = targets.resolve(engine.manifest.target_config)
        kernels = [k for k in engine.manifest.kernels if k.batch == options.batch]
        if not kernels:
            raise SystemExit(f"the library has batch sizes {engine.manifest.batch_sizes}")
        faces = np.full((options.batch, 1, 64, 64), 100, np.float32)
        machine = engine._machine
        assert machine is not None
        runs = []
        for _ in range(options.calls + 10):
            call = machine.worker.submit(lambda: machine.kernel_times(faces))
            runs.append([seconds for _, seconds in call.result()])
        # On the engine's thread, since TVM's pool of helpers is that of the calling thread.
        one_core, limit = machine.worker.submit(
            lambda: (peak(target, 1), peak(target, options.threads))
        ).result()
    times = [1e3 * statistics.median(column) for column in zip(*runs[10:], strict=True)]

    print(f"peak: {one_core:.1f} GFLOP/s on one core, {limit:.1f} on {options.threads} thread(s)")
    print("batched products of Winograd F(4,3), elements x tiles x channels in x channels out:")
    for size, inputs, outputs in ((64, 64, 64), (32, 128, 128), (16, 256, 256)):
        window = ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
        w = conv2d.Workload(1, size, size, inputs, outputs, *window, True)
        print(product_share(w, target, one_core))
    print(
        f"\nbatch {options.batch}, {options.threads} thread(s), medians of {options.calls} calls:"
    )
    print(f"{'layer':<30} {'algorithm':<19} {'ms':>7} {'share':>6} {'GFLOP/s':>8} {'of peak':>8}")
    for kernel, milliseconds in zip(kernels, times, strict=True):
        layer = kernel.layer + (f" + {kernel.fused}" if kernel.fused else "")
        rate = direct_flops(kernel) / milliseconds / 1e6
        share = milliseconds / sum(times)
        print(
            f"{layer:<30} {kernel.algorithm:<19} {milliseconds:7.3f} {share:6.1%} {rate:8.1f} "
            f"{rate / limit:8.0%}"
        )
    whole = sum(map(direct_flops, kernels)) / sum(times) / 1e6
    print(f"{'all kernels':<50} {sum(times):7.3f} {'':>6} {whole:8.1f} {whole / limit:8.0%}")


if __name__ == "__main__":
    main()
