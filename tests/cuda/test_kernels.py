"""The GPU's kernels, emulated, beside numpy in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.cuda import activation_type, dense, direct, implicit_gemm, pool
from ferplus_tvm.kernels.cuda.backend import CudaBackend
from ferplus_tvm.kernels.cuda.launch import Launch
from ferplus_tvm.kernels.workloads import Conv, Dense, Pool
from ferplus_tvm.targets import GPUS, Precision
from tests.cuda.conftest import RunEmulated
from tests.cuda.emulator import Program

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


def biases(w: Conv | Dense, channels: int) -> NDArray[np.float32]:
    """Draw a bias, and bounds where there are some, the lower below the upper."""
    bias = numbers(w.bias_shape(channels), 3)
    if w.bounded:
        bias[1:].sort(axis=0)
    return bias


@dataclass(frozen=True)
class Case:
    """A layer and how it is computed."""

    w: Conv | Dense | Pool
    config: Config
    precision: Precision
    last: bool = False

    @property
    def backend(self) -> CudaBackend:
        return CudaBackend(GPUS["sm_90"], self.precision)

    @property
    def kernels(self) -> Sequence[Launch]:
        return self.backend.launches(self.w, self.config, self.last)


SMALL = implicit_gemm.Config(rows=32, columns=32, warp_rows=32, warp_columns=16, stages=2)
CONVOLUTIONS = {
    f"{name}, {precision}": Case(w, SMALL, precision)
    for precision in PRECISIONS
    for name, w in {
        "as FER+ has them": conv(),
        "pooled": conv(pool=True, height=12, width=8),
        "pooled, odd map": conv(pool=True, height=9, width=7),
        "no ReLU": conv(relu=False),
        "strides": conv(stride=(2, 1), height=9, width=10),
        "dilation": conv(dilation=(2, 1), padding=(2, 1, 2, 1)),
        "one-sided halo": conv(padding=(2, 0, 0, 1)),
        "1x1": conv(kernel=(1, 1), padding=(0, 0, 0, 0), in_channels=40),
        "more channels than a tile": conv(kernel=(5, 5), padding=(2, 2, 2, 2), out_channels=72),
    }.items()
}
TILINGS: list[tuple[implicit_gemm.Config, Precision]] = [
    (implicit_gemm.Config(64, 32, 64, 32, 4), "float32"),
    (implicit_gemm.Config(64, 64, 32, 32, 3), "float32"),
    (implicit_gemm.Config(128, 32, 32, 16, 2), "float32"),
    (implicit_gemm.Config(64, 64, 64, 64, 4), "tf32"),
    (implicit_gemm.Config(64, 64, 32, 32, 3), "tf32"),
    (implicit_gemm.Config(128, 128, 64, 32, 2), "float16"),
]
TILED = {
    f"tiling {at}, pool {pool}, split {split}, {precision}": Case(
        conv(pool=pool, height=10, width=10, out_channels=40),
        replace(config, split=split),
        precision,
    )
    for at, (config, precision) in enumerate(TILINGS)
    for pool, split in [(False, 1), (True, 1), (False, 3), (True, 4)]
}
ACTIVATED = {
    f"{activation}, pool {pool}, split {split}, {precision}": Case(
        conv(pool=pool, height=9, **activation), replace(SMALL, split=split), precision
    )
    for activation, pool, split, precision in [
        ({"slope": 0.25}, False, 1, "float32"),
        ({"slope": 3.0}, True, 3, "float16"),
        ({"relu": False, "bounded": True}, True, 1, "float16"),
        ({"relu": False, "bounded": True}, False, 3, "tf32"),
    ]
}
FIRST = {
    f"affine {affine is not None}, pool {pool}, {precision}": Case(
        conv(in_channels=1, batch=3, height=10, width=14, affine=affine, pool=pool),
        direct.Config(),
        precision,
    )
    for affine in (None, (127.5, 1 / 64))
    for pool in (False, True)
    for precision in PRECISIONS
} | {
    f"three channels, {name}, {precision}": Case(
        conv(in_channels=3, batch=1, height=9, width=7, pool=True, **options),
        direct.Config(),
        precision,
    )
    for name, options, precision in [
        ("raw", {"relu": False, "bounded": True}, "float32"),
        ("one affine", {"affine": (0.5, 1 / 64)}, "float32"),
        ("affine", {"affine": ((0.5, -1.0, 2.0), (1 / 64, 2.0, 0.5)), "slope": 0.5}, "float16"),
    ]
}
DENSE = {
    f"{config.algorithm}, batch {batch}, last {last}, half {half}, {precision}": Case(
        Dense(batch, 264, 8 if last else 24, 8 if last else 24, not last, half),
        config,
        precision,
        last,
    )
    for precision in PRECISIONS
    for batch, config, half, last in [
        (1, dense.Gemv(warps=4, faces=1), True, False),
        (1, dense.Gemv(warps=4, faces=1), False, True),
        (3, dense.Gemv(warps=2, faces=2), False, False),
        (9, dense.Gemv(warps=1, faces=8), True, True),
        (9, dense.Gemm(**vars(SMALL)), True, True),
        (40, dense.Gemm(**vars(replace(SMALL, split=4))), False, False),
    ]
}
DENSE |= {
    f"{activation}, {config.algorithm}, {precision}": Case(
        Dense(9, 264, 24, 24, **activation), config, precision
    )
    for activation, config, precision in [
        ({"relu": True, "slope": 0.25}, dense.Gemv(warps=1, faces=8), "float16"),
        ({"relu": True, "slope": 0.25}, dense.Gemm(**vars(SMALL)), "float32"),
        ({"relu": False, "bounded": True}, dense.Gemv(warps=2, faces=2), "float32"),
        ({"relu": False, "bounded": True}, dense.Gemm(**vars(replace(SMALL, split=4))), "tf32"),
    ]
}
POOLED = {
    f"{kind} of {kernel} by {stride}, {precision}": Case(w, pool.Config.preset(w), precision)
    for precision in PRECISIONS
    for kind, kernel, stride, padding in [
        ("max", (2, 2), (2, 2), (0, 0, 0, 0)),
        ("max", (3, 3), (2, 1), (1, 0, 1, 2)),
        ("max", (1, 4), (3, 3), (0, 0, 0, 0)),
        ("average", (2, 2), (2, 2), (0, 0, 0, 0)),
        ("average", (9, 11), (1, 1), (0, 0, 0, 0)),
    ]
    for w in [Pool(2, 9, 11, 16, kernel, stride, padding, kind)]
}
OVERFLOW = Case(conv(batch=1), SMALL, "float16")
GROUPS = (CONVOLUTIONS, TILED, ACTIVATED, FIRST, DENSE, POOLED, {"": OVERFLOW})
PROGRAM = Program(case.kernels for group in GROUPS for case in group.values())


def cases(group: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", group.values(), ids=group.keys())


@cases(CONVOLUTIONS | TILED | ACTIVATED | FIRST)
def test_convolutions(case: Case, run_emulated: RunEmulated) -> None:
    w, precision = case.w, case.precision
    first = isinstance(case.config, direct.Config)
    assert isinstance(w, Conv) and direct.applies(w) == first
    x = numbers((w.batch, w.height, w.width, w.in_channels), 1)
    weight = numbers((w.out_channels, w.in_channels, *w.kernel), 2)
    bias = biases(w, w.out_channels)
    if not first:  # what the kernel before has stored
        x = implicit_gemm.rounded(x, precision).astype(np.float32)
        weight = implicit_gemm.rounded(weight, precision).astype(np.float32)
    y = run_emulated(
        PROGRAM,
        case.kernels,
        x=x.astype("float32" if first else activation_type(precision)),
        weight=case.backend.pack(w, case.config, weight),
        bias=bias,
    )
    reference = w.reference(x, weight, bias)
    assert y.shape == reference.shape and str(y.dtype) == activation_type(precision)
    assert np.abs(y - reference).max() <= TOLERANCE[precision] * np.abs(reference).max()
    if precision == "tf32":
        assert not (y.view(np.uint32) & 0x1FFF).any()  # as the next GEMM wants it


@cases(DENSE)
def test_dense_layers(case: Case, run_emulated: RunEmulated) -> None:
    w, precision = case.w, case.precision
    assert isinstance(w, Dense)
    x = implicit_gemm.rounded(numbers((w.batch, w.in_features), 1), precision)
    weight = numbers((w.in_features, w.out_features), 2)
    if w.fp16_weights:
        weight = weight.astype(np.float16).astype(np.float32)
    bias = biases(w, w.out_features)
    stored = case.backend.pack(w, case.config, weight)
    y = run_emulated(PROGRAM, case.kernels, x=x, weight=stored, bias=bias)
    y = y.reshape(w.batch, -1)
    reference = w.reference(x, stored.T, bias)
    assert str(y.dtype) == ("float32" if case.last else activation_type(precision))
    tolerance = TOLERANCE["float32" if case.last else precision]
    assert np.abs(y - reference).max() <= tolerance * np.abs(reference).max()


@cases(POOLED)
def test_poolings(case: Case, run_emulated: RunEmulated) -> None:
    assert isinstance(case.w, Pool)
    x = case.backend.activation(numbers((2, 9, 11, 16), 1))
    y = run_emulated(PROGRAM, case.kernels, x=x)
    tolerance = TOLERANCE[case.precision] if case.w.kind == "average" else 0
    error = np.abs(y - case.w.reference(x.astype(np.float64))).max()
    assert error <= tolerance * np.abs(x).max()
    np.testing.assert_array_equal(y, case.backend.activation(y.astype(np.float32)))


def test_halves_that_overflow_become_the_largest_half(run_emulated: RunEmulated) -> None:
    assert isinstance(OVERFLOW.w, Conv)
    x = np.full((1, 8, 8, 16), 100, np.float16)
    weight = np.full((24, 16, 3, 3), 100, np.float32)
    packed = OVERFLOW.backend.pack(OVERFLOW.w, OVERFLOW.config, weight)
    bias = np.zeros(24, np.float32)
    y = run_emulated(PROGRAM, OVERFLOW.kernels, x=x, weight=packed, bias=bias)
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
    for batch, (size, channels), pooled in shapes:
        w = conv(
            batch=batch, height=size, width=size, in_channels=64, out_channels=channels, pool=pooled
        )
        configs = list(implicit_gemm.candidates(w, GPUS[arch], precision))
        assert len(configs) == len(set(configs)) > 3
        assert CudaBackend(GPUS[arch], precision).choose(w).config in configs
        for config in configs:
            assert config.threads <= 1024 and config.shared <= 99 << 10 and config.stages >= 2
            sums = config.warp_rows * config.warp_columns // 32
            assert sums <= (64 if precision == "float32" else 128)  # of 255 registers


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_of_any_number_of_classes_are_written_without_what_is_stored_beside_them(
    precision: Precision,
) -> None:
    backend = CudaBackend(GPUS["sm_90"], precision)
    for batch in (1, 8, 32, 256):
        w = Dense(batch, 1024, 8, 7, relu=False)
        for config in (backend.choose(w).config, *backend.candidates(w)):
            *_, launch = backend.launches(w, config, last=True)
            assert launch.output.shape == (batch, 7)
