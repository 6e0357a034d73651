"""The sigmoid of a vector, without a call of the C library for each of its numbers."""

from __future__ import annotations

from ferplus_tvm.kernels.cpu.tensorir import Expr, Vectors, value

# exp(r) - 1 - r for |r| <= log(2)/2: Cephes' expf, by S. Moshier, public domain in netlib.
_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440e-4
_LARGEST = 87.0  # exp of it, and of its negative, is a normal float32


def sigmoid(unit: Vectors, x: Expr) -> Expr:
    """Return 1 / (1 + exp(-x)), within two units in the last place of float32."""
    one = unit.splat(1.0)
    return one / (one + _exp(unit, unit.splat(0.0) - x))


def _exp(unit: Vectors, x: Expr) -> Expr:
    """Return exp(x) = 2**n * exp(r), x brought into the range where that is a normal number."""
    from tvm import tirx

    x = value(tirx.max(tirx.min(x, unit.splat(_LARGEST)), unit.splat(-_LARGEST)))
    n = value(tirx.floor(x * unit.splat(1.4426950408889634) + unit.splat(0.5)))
    r = value(x - n * unit.splat(_LOG2_HIGH) - n * unit.splat(_LOG2_LOW))
    tail = unit.splat(_POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        tail = tail * r + unit.splat(coefficient)
    significand = tail * r * r + r + unit.splat(1.0)
    lanes = f"x{unit.lanes}" if unit.lanes > 1 else ""
    exponent = (n.astype(f"int32{lanes}") + _whole(unit, 127)) * _whole(unit, 1 << 23)
    return significand * tirx.reinterpret(f"float32{lanes}", exponent)


def _whole(unit: Vectors, number: int) -> Expr:
    from tvm import tirx

    constant = tirx.const(number, "int32")
    return tirx.Broadcast(constant, unit.lanes) if unit.lanes > 1 else constant
