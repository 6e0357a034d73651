"""Winograd's convolution on the GPU, emulated, beside numpy in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferplus_tvm.kernels.cuda import implicit_gemm, winograd
from ferplus_tvm.kernels.winograd_matrices import ALGORITHMS
from ferplus_tvm.kernels.workloads import Conv
from ferplus_tvm.targets import GPUS
from tests.cuda.emulator import COMPILER, run
from tests.cuda.test_kernels import conv, numbers

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")

WORKLOADS = {
    "as FER+ has them": conv(),
    "pooled": conv(pool=True, height=12, width=8),
    "pooled, odd map": conv(pool=True, height=9, width=7),
    "no ReLU": conv(relu=False, height=5, width=13),
    "one-sided border": conv(padding=(2, 0, 0, 1)),
    "no border": conv(padding=(0, 0, 0, 0), pool=True),
    "a map smaller than a tile": conv(height=1, width=2),
    "more channels than a block": conv(in_channels=72, out_channels=40, batch=1),
}


@needs_compiler
@pytest.mark.parametrize("w", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_convolutions(w: Conv, tmp_path: Path) -> None:
    check(w, winograd.Config(4, 32, 32, 32, 16, 2), tmp_path)


@needs_compiler
@pytest.mark.parametrize("tile", ALGORITHMS)
@pytest.mark.parametrize("pool", [False, True])
def test_algorithms(pool: bool, tile: int, tmp_path: Path) -> None:
    w = conv(pool=pool, height=9, width=15, padding=(2, 1, 0, 1))
    check(w, winograd.Config(tile, 32, 32, 32, 16, 2), tmp_path)


@needs_compiler
@pytest.mark.parametrize("tiling", [(64, 32, 64, 32, 4), (64, 64, 32, 32, 3), (128, 32, 32, 16, 2)])
def test_tilings(tiling: Any, tmp_path: Path) -> None:
    check(conv(height=20, width=12, out_channels=40), winograd.Config(4, *tiling), tmp_path)


def check(w: Conv, config: winograd.Config, folder: Path) -> None:
    """Compare with the reference; the error allowed is the one that the matrices promise."""
    x = numbers((w.batch, w.height, w.width, w.in_channels), 1)
    weight = numbers((w.out_channels, w.in_channels, 3, 3), 2)
    bias = numbers((w.out_channels,), 3)
    packed = winograd.pack_weight(weight, config.tile)
    y = run(winograd.kernels(w, config), folder, x=x, weight=packed, bias=bias)
    reference = w.reference(x, weight, bias)
    largest = np.abs(replace(w, relu=False).reference(x, weight, bias)).max()
    assert y.shape == reference.shape
    assert np.abs(y - reference).max() <= ALGORITHMS[config.tile].error * largest


@pytest.mark.parametrize("arch", GPUS)
def test_every_tiling_on_offer_fits_a_block(arch: str) -> None:
    shapes = itertools.product((1, 32, 1024), ((64, 64), (8, 256)), (False, True))
    for batch, (size, channels), pool in shapes:
        w = conv(
            batch=batch, height=size, width=size, in_channels=64, out_channels=channels, pool=pool
        )
        configs = list(winograd.space(w, GPUS[arch], "float32"))
        presets = winograd.presets(w, GPUS[arch], "float32")
        assert set(presets) <= set(configs)
        assert [preset.tile for preset in presets] == sorted({each.tile for each in configs})
        for config in configs:
            assert config.product.threads <= 1024 and config.product.shared <= 99 << 10
            for kernel in winograd.kernels(w, config):
                assert 4 * np.prod(kernel.output.shape) <= 1 << 30  # as the README says


def test_a_batch_whose_tiles_would_fill_the_memory_has_no_such_kernels() -> None:
    w = conv(height=64, width=64, in_channels=64, out_channels=64)
    offered = [
        list(winograd.space(replace(w, batch=n), GPUS["sm_90"], "float32")) for n in (8, 4096)
    ]
    assert offered[0] and not offered[1]


@pytest.mark.parametrize(
    "w", [conv(kernel=(5, 5)), conv(stride=(2, 1)), conv(dilation=(2, 1)), conv(affine=(127.5, 1))]
)
def test_other_convolutions_are_left_to_the_product(w: Conv) -> None:
    assert not list(winograd.space(w, GPUS["sm_90"], "float32"))
    assert list(implicit_gemm.space(w, GPUS["sm_90"], "float32"))


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_tensor_cores_keep_to_the_product(precision: Any) -> None:
    assert not list(winograd.space(conv(), GPUS["sm_90"], precision))
