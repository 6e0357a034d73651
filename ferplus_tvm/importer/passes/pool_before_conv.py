"""Rule: a convolution of 1x1 before the mean over the map becomes a dense layer behind it.

1. Both are linear, so they may change places; behind the mean the map is one pixel.
2. A convolution with an activation, a border, a stride or a larger window is left alone, and so
   is one before any other pooling.
"""

from __future__ import annotations

from dataclasses import replace

from ferplus_tvm.importer.reader.layers import spread_groups
from ferplus_tvm.importer.reader.state import MAX_VALUES
from ferplus_tvm.importer.steps import Affine, Chain, Clip, Conv, Dense, Flatten, Leaky, Pool, Step


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    for index, step in enumerate(chain.steps[:-1]):
        after = chain.steps[index + 1]
        if isinstance(step, Conv) and isinstance(after, Pool) and _may_swap(step, after):
            return _swap(chain, index, step, after)
    return False


def _may_swap(conv: Conv, pool: Pool) -> bool:
    """Tell whether a convolution is one of single pixels, and the pooling the mean of them all."""
    window = conv.window
    pointwise = window.kernel == window.strides == (1, 1) and not any(window.pads)
    pointwise = pointwise and conv.weight.size * conv.group <= MAX_VALUES
    return pointwise and pool.op == "AveragePool" and pool.window.kernel == conv.shape[1:]


def _swap(chain: Chain, index: int, conv: Conv, pool: Pool) -> bool:
    """Write both the other way round; the steps behind are on rows then."""
    weight = spread_groups(conv.weight, conv.group)
    outputs, inputs = weight.shape[:2]
    rows: list[Step] = []
    rest = chain.steps[index + 2 :]
    while rest and isinstance(rest[0], (Affine, Clip, Leaky)):
        rows.append(replace(rest.pop(0), shape=(outputs,)))
    if rest and not isinstance(rest[0], Flatten):
        return False
    chain.steps[index:] = [
        replace(pool, shape=(inputs, 1, 1)),
        Flatten(f"{conv.name}_flatten", (inputs,)),
        Dense(conv.name, (outputs,), weight.reshape(outputs, inputs).T, conv.bias),
        *rows,
        *rest[1:],
    ]
    return True
