"""Rule: slopes that differ from channel to channel, or are negative, become a layer behind ReLU.

1. f(z) is z where z is positive and a * z elsewhere, which is relu(z) - a * relu(-z).  So the
   layer before makes both z and -z, a ReLU follows, and a convolution of 1x1 in groups of two
   channels, or a dense layer, puts them together.
2. One slope for all channels that is not negative is left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.steps import Chain, Clip, Conv, Dense, Floats, Leaky, Step
from ferplus_tvm.importer.window import Window


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    for index, (layer, step) in enumerate(zip(chain.steps, chain.steps[1:], strict=False)):
        if isinstance(layer, (Conv, Dense)) and isinstance(step, Leaky) and not step.is_plain:
            chain.steps[index + 1 : index + 2] = _split(layer, step)
            return True
    return False


def _split(layer: Conv | Dense, step: Leaky) -> list[Step]:
    """Make the layer give both signs; return the steps in the place of the slopes."""
    count, *size = step.shape
    doubled = (2 * count, *size)
    axis = 0 if isinstance(layer, Conv) else 1
    layer.weight = _both_signs(layer.weight, axis)
    layer.bias = _both_signs(layer.bias, 0)
    layer.shape = doubled
    bounds = np.zeros(2 * count), np.full(2 * count, np.inf)
    relu = Clip(step.name, doubled, *bounds)
    name = f"{step.name}_slopes"
    pairs = np.stack([np.ones(count), -step.slope], axis=1)
    if isinstance(layer, Dense):
        matrix = np.zeros((count, 2, count))
        matrix[np.arange(count), :, np.arange(count)] = pairs
        return [relu, Dense(name, step.shape, matrix.reshape(-1, count), np.zeros(count))]
    window = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (size[0], size[1]))
    weight = pairs.reshape(count, 2, 1, 1)
    return [relu, Conv(name, step.shape, weight, np.zeros(count), window, count)]


def _both_signs(array: Floats, axis: int) -> Floats:
    """Return x and -x beside each other along an axis."""
    return np.repeat(array, 2, axis) * _alternating(array, axis)


def _alternating(array: Floats, axis: int) -> Floats:
    """Return 1, -1, 1, -1, ... along an axis of twice the size."""
    signs = np.tile(np.array([1, -1], array.dtype), array.shape[axis])
    return signs.reshape([-1 if at == axis else 1 for at in range(array.ndim)])
