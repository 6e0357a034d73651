"""Rule: what no other rule could place gets a layer of its own.

1. A scale and shift becomes a depthwise convolution of 1x1, or a dense layer on rows; but at the
   input it stays, where it can be written as (x - a) * b.
2. An activation behind anything but a convolution or a dense layer, such as an AveragePool or
   another activation, gets such a layer before it that hands its input on.
3. So does anything but a convolution behind the scaling of the input, which a convolution does
   while it reads the faces.
"""

from __future__ import annotations

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.passes.fold_affine import is_scaling
from ferplus_tvm.importer.steps import (
    Affine,
    Chain,
    Clip,
    Conv,
    Dense,
    Leaky,
    Shape,
    identity,
    layer_of,
)

# A dense layer that only scales has as many weights as the square of this.
_MAX_ROWS = 4096


def apply(chain: Chain) -> bool:
    """Apply the rule to the first step that it fits; return whether there was one.

    Raises
    ------
    UnsupportedModelError
        If the layer would be out of all proportion.
    """
    for index, step in enumerate(chain.steps):
        if isinstance(step, Affine) and not (index == 0 and is_scaling(step)):
            _check(step.name, step.shape)
            chain.steps[index] = layer_of(step)
            return True
        before = chain.steps[index - 1] if index else None
        if isinstance(before, Affine) and not isinstance(step, Conv):
            chain.steps.insert(index, identity(f"{before.name}_identity", before.shape))
            return True
        if isinstance(step, (Clip, Leaky)) and not isinstance(before, (Conv, Dense)):
            _check(step.name, step.shape)
            chain.steps.insert(index, identity(f"{step.name}_identity", step.shape))
            return True
    return False


def _check(name: str, shape: Shape) -> None:
    if len(shape) == 1 and shape[0] > _MAX_ROWS:
        raise UnsupportedModelError(
            f"node {name!r} works on {shape[0]} values one by one between the flattening and an "
            f"activation, which is supported for up to {_MAX_ROWS}: put it before the flattening"
        )
