"""The GPU's kernels, emulated, beside numpy in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ferplus_tvm.kernels.cuda import activation_type, dense, implicit_gemm, max_pool
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.targets import GPUS, Precision
from tests.cuda.emulator import COMPILER, run

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")

GPU = GPUS["sm_90"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "float16")
# Of the largest output; products of numbers with 11 significant bits, summed in float32.
TOLERANCE = {"float32": 1e-6, "tf32": 2e-3, "float16": 2e-3}


def conv(**options: Any) -> Conv:
    fields: dict[str, Any] = {
        "batch": 2,
        "height": 8,
        "width": 8,
        "in_channels": 16,
        "out_channels": 24,
        "kernel": (3, 3),
        "stride": (1, 1),
        "padding": (1, 1, 1, 1),
        "dilation": (1, 1),
        "relu": True,
    }
    return Conv(**(fields | options))


def numbers(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(w: Conv, config: implicit_gemm.Config | None, precision: Precision, folder: Path) -> None:
    x = numbers((w.batch, w.height, w.width, w.in_channels), 1)
    weight = numbers((w.out_channels, w.in_channels, *w.kernel), 2)
    bias = numbers((w.out_channels,), 3)
    if config is not None:  # what the kernel before has stored
        x = implicit_gemm.rounded(x, precision).astype(np.float32)
        weight = implicit_gemm.rounded(weight, precision).astype(np.float32)
    y = run(
        implicit_gemm.kernels(w, config, precision, last=False),
        folder,
        x=x.astype("float32" if config is None else activation_type(precision)),
        weight=implicit_gemm.pack_weight(w, weight, precision),
        bias=bias,
    )
    reference = w.reference(x, weight, bias)
    assert y.shape == reference.shape and str(y.dtype) == activation_type(precision)
    assert np.abs(y - reference).max() <= TOLERANCE[precision] * np.abs(reference).max()
    if precision == "tf32":
        assert not (y.view(np.uint32) & 0x1FFF).any()  # as the next product wants it


WORKLOADS = {
    "as FER+ has them": conv(),
    "pooled": conv(pool=True, height=12, width=8),
    "pooled, odd map": conv(pool=True, height=9, width=7),
    "no ReLU": conv(relu=False),
    "strides": conv(stride=(2, 1), height=9, width=10),
    "dilation": conv(dilation=(2, 1), padding=(2, 1, 2, 1)),
    "one-sided halo": conv(padding=(2, 0, 0, 1)),
    "1x1": conv(kernel=(1, 1), padding=(0, 0, 0, 0), in_channels=40),
    "5x5, more channels than a tile": conv(kernel=(5, 5), padding=(2, 2, 2, 2), out_channels=72),
}
SMALL = implicit_gemm.Config(rows=32, columns=32, warp_rows=32, warp_columns=16, stages=2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_convolutions(workload: Conv, precision: Precision, tmp_path: Path) -> None:
    check(workload, SMALL, precision, tmp_path)


TILINGS = [
    (implicit_gemm.Config(64, 32, 64, 32, 4), "float32"),
    (implicit_gemm.Config(64, 64, 32, 32, 3), "float32"),
    (implicit_gemm.Config(128, 32, 32, 16, 2), "float32"),
    (implicit_gemm.Config(64, 64, 64, 64, 4), "tf32"),
    (implicit_gemm.Config(64, 64, 32, 32, 3), "tf32"),
    (implicit_gemm.Config(128, 128, 64, 32, 2), "float16"),
]


@pytest.mark.parametrize(("pool", "split"), [(False, 1), (True, 1), (False, 3), (True, 4)])
@pytest.mark.parametrize(("config", "precision"), TILINGS)
def test_tilings(
    config: implicit_gemm.Config, precision: Precision, pool: bool, split: int, tmp_path: Path
) -> None:
    w = conv(pool=pool, height=10, width=10, out_channels=40)
    check(w, replace(config, split=split), precision, tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("affine", [None, (127.5, 1 / 64)])
def test_the_first_layer(
    affine: tuple[float, float] | None, pool: bool, precision: Precision, tmp_path: Path
) -> None:
    w = conv(in_channels=1, batch=3, height=10, width=14, affine=affine, pool=pool)
    assert implicit_gemm.is_direct(w)
    check(w, None, precision, tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("batch", "config", "half", "last"),
    [
        (1, dense.Config(warps=4, faces=1), True, False),
        (1, dense.Config(warps=4, faces=1), False, True),
        (3, dense.Config(warps=2, faces=2), False, False),
        (9, dense.Config(warps=1, faces=8), True, True),
        (9, SMALL, True, True),
        (40, replace(SMALL, split=4), False, False),
    ],
)
def test_dense_layers(
    batch: int,
    config: dense.Config | implicit_gemm.Config,
    half: bool,
    last: bool,
    precision: Precision,
    tmp_path: Path,
) -> None:
    w = Dense(batch, 264, 8 if last else 24, 8 if last else 24, relu=not last, fp16_weights=half)
    x = implicit_gemm.rounded(numbers((batch, w.in_features), 1), precision)
    weight = numbers((w.in_features, w.out_features), 2)
    if half:
        weight = weight.astype(np.float16).astype(np.float32)
    bias = numbers((w.out_features,), 3)
    kind = dense.weight_kind(w, precision, config)
    stored = dense.pack_weight(weight, kind)
    y = run(dense.kernels(w, config, precision, last), tmp_path, x=x, weight=stored, bias=bias)
    y = y.reshape(batch, -1)
    reference = w.reference(x, stored.T, bias)
    assert str(y.dtype) == ("float32" if last else activation_type(precision))
    tolerance = TOLERANCE["float32" if last else precision]
    assert np.abs(y - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 1), (1, 0, 1, 2)),
        ((1, 4), (3, 3), (0, 0, 0, 0)),
    ],
)
def test_max_pooling(
    kernel: Any, stride: Any, padding: Any, precision: Precision, tmp_path: Path
) -> None:
    w = Pool(2, 9, 11, 16, kernel, stride, padding)
    x = numbers((2, 9, 11, 16), 1).astype(activation_type(precision))
    y = run([max_pool.kernel(w, precision)], tmp_path, x=x)
    np.testing.assert_array_equal(y, w.reference(x))


def test_halves_that_overflow_become_the_largest_half(tmp_path: Path) -> None:
    w = conv(batch=1)
    x = np.full((1, 8, 8, 16), 100, np.float16)
    weight = np.full((24, 16, 3, 3), 100, np.float32)
    kernels = implicit_gemm.kernels(w, SMALL, "float16", last=False)
    packed = implicit_gemm.pack_weight(w, weight, "float16")
    y = run(kernels, tmp_path, x=x, weight=packed, bias=np.zeros(24, np.float32))
    assert (y == np.finfo(np.float16).max).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_keeps_the_nearest(precision: Precision) -> None:
    weight = numbers((1000,), 5)
    bits = {"float32": 23, "tf32": 10, "float16": 10}[precision]
    error = np.abs(implicit_gemm.rounded(weight, precision).astype(np.float64) - weight)
    assert (error <= 2.0 ** (np.floor(np.log2(np.abs(weight))) - bits - 1) + 2.0**-25).all()


@pytest.mark.parametrize("arch", GPUS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_tiling_on_offer_fits_a_block(arch: str, precision: Precision) -> None:
    shapes = itertools.product((1, 8, 32, 1024), ((64, 64), (32, 128), (8, 256)), (False, True))
    for batch, (size, channels), pool in shapes:
        w = conv(
            batch=batch, height=size, width=size, in_channels=64, out_channels=channels, pool=pool
        )
        configs = list(implicit_gemm.space(w, GPUS[arch], precision))
        assert len(configs) == len(set(configs)) > 3
        assert implicit_gemm.Config.preset(w, GPUS[arch], precision) in configs
        for config in configs:
            assert config.threads <= 1024 and config.shared <= 99 << 10 and config.stages >= 2
            sums = config.warp_rows * config.warp_columns // 32
            assert sums <= (64 if precision == "float32" else 128)  # of 255 registers
