"""Winograd's convolution on the GPU, emulated, beside numpy in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferplus_tvm.kernels.cuda import implicit_gemm, winograd
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.winograd_matrices import MATRICES
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import GPUS
from tests.cuda.conftest import RunEmulated
from tests.cuda.emulator import Program
from tests.cuda.test_kernels import biases, conv, numbers

CASES: dict[str, tuple[Conv, winograd.Config]] = {
    name: (w, winograd.Config(4, 32, 32, 32, 16, 2))
    for name, w in {
        "as FER+ has them": conv(),
        "pooled": conv(pool=True, height=12, width=8),
        "pooled, odd map": conv(pool=True, height=9, width=7),
        "no ReLU": conv(relu=False, height=5, width=13),
        "one-sided halo": conv(padding=(2, 0, 0, 1)),
        "no halo": conv(padding=(0, 0, 0, 0), pool=True),
        "a map smaller than a tile": conv(height=1, width=2),
        "leaky ReLU": conv(slope=0.25, pool=True, height=5),
        "bounds": conv(relu=False, bounded=True, width=6),
        "more channels than a block": conv(in_channels=72, out_channels=40, batch=1),
    }.items()
}
CASES |= {
    f"F({tile},3), pool {pool}": (
        conv(pool=pool, height=9, width=15, padding=(2, 1, 0, 1)),
        winograd.Config(tile, 32, 32, 32, 16, 2),
    )
    for tile in MATRICES
    for pool in (False, True)
}
CASES |= {
    f"tiling {at}": (conv(height=20, width=12, out_channels=40), winograd.Config(4, *tiling))
    for at, tiling in enumerate([(64, 32, 64, 32, 4), (64, 64, 32, 32, 3), (128, 32, 32, 16, 2)])
}
PROGRAM = Program(winograd.launches(w, config) for w, config in CASES.values())


@pytest.mark.parametrize(("w", "config"), CASES.values(), ids=CASES.keys())
def test_convolutions(w: Conv, config: winograd.Config, run_emulated: RunEmulated) -> None:
    """Compare with the reference; the error allowed is the one that the matrices promise."""
    x = numbers((w.batch, w.height, w.width, w.in_channels), 1)
    weight = numbers((w.out_channels, w.in_channels, 3, 3), 2)
    bias = biases(w, w.out_channels)
    packed = winograd.pack_weight(weight, config.tile)
    kernels = winograd.launches(w, config)
    y = run_emulated(PROGRAM, kernels, x=x, weight=packed, bias=bias)
    reference = w.reference(x, weight, bias)
    plain = replace(w, relu=False, bounded=False)
    largest = np.abs(plain.reference(x, weight, bias[0] if w.bounded else bias)).max()
    assert y.shape == reference.shape
    assert np.abs(y - reference).max() <= MATRICES[config.tile].error * largest


@pytest.mark.parametrize("arch", GPUS)
def test_every_tiling_on_offer_fits_a_block(arch: str) -> None:
    shapes = itertools.product((1, 32, 1024), ((64, 64), (8, 256)), (False, True))
    for batch, (size, channels), pool in shapes:
        w = conv(
            batch=batch, height=size, width=size, in_channels=64, out_channels=channels, pool=pool
        )
        configs = list(winograd.candidates(w, GPUS[arch], "float32"))
        _, *presets = CudaBackend(GPUS[arch], "float32").presets(w)
        assert set(presets) <= set(configs)
        algorithms = [preset.algorithm for preset in presets]
        assert sorted(algorithms) == sorted({each.algorithm for each in configs})
        for config in configs:
            assert config.gemm.threads <= 1024 and config.gemm.shared <= 99 << 10
            for kernel in winograd.launches(w, config):
                assert 4 * np.prod(kernel.output.shape) <= 1 << 30  # as the README says


def test_a_batch_whose_tiles_would_fill_the_memory_has_no_such_kernels() -> None:
    w = conv(height=64, width=64, in_channels=64, out_channels=64)
    offered = [
        list(winograd.candidates(replace(w, batch=n), GPUS["sm_90"], "float32")) for n in (8, 4096)
    ]
    assert offered[0] and not offered[1]


@pytest.mark.parametrize(
    "w", [conv(kernel=(5, 5)), conv(stride=(2, 1)), conv(dilation=(2, 1)), conv(affine=(127.5, 1))]
)
def test_other_convolutions_are_left_to_the_gemm(w: Conv) -> None:
    assert not list(winograd.candidates(w, GPUS["sm_90"], "float32"))
    assert list(implicit_gemm.candidates(w, GPUS["sm_90"], "float32"))


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_tensor_cores_keep_to_the_gemm(precision: Any) -> None:
    assert not list(winograd.candidates(conv(), GPUS["sm_90"], precision))
