"""Rule: move an activation towards the layer whose it is.

1. It moves before a MaxPool, if it never decreases.
2. It moves before a Flatten, if its bounds and slopes are those of channels.
3. It moves before a border, whose number it is applied to.
4. One behind anything else is left alone.
"""

from __future__ import annotations

import math

import numpy as np

from ferplus_tvm.importer.steps import (
    Activation,
    Chain,
    Clip,
    Flatten,
    Floats,
    Leaky,
    Pad,
    Pool,
    Shape,
)


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    modified = False
    index = 0
    while index < len(chain.steps):
        step = chain.steps[index]
        if isinstance(step, (Clip, Leaky)) and _place(chain, index, step):
            modified = True
            index = 0
        else:
            index += 1
    return modified


def _place(chain: Chain, index: int, step: Activation) -> bool:
    """Move one activation before the step before it; return whether that was possible."""
    if not index:
        return False
    before = chain.steps[index - 1]
    shape = chain.shape_before(index - 1)
    moved: Activation | None = None
    increasing = isinstance(step, Clip) or step.is_increasing
    if isinstance(before, Pool) and before.op == "MaxPool" and increasing:
        moved = _on(step, shape)
    elif isinstance(before, Flatten):
        moved = _of_channels(step, shape)
    elif isinstance(before, Pad):
        values = _applied(step, np.full(shape[0], before.value))
        if np.unique(values).size == 1:
            before.value = float(values[0])
            moved = _on(step, shape)
    if moved is None:
        return False
    chain.steps[index - 1], chain.steps[index] = moved, before
    return True


def _on(step: Activation, shape: Shape) -> Activation:
    """Return the activation on another map of as many channels."""
    if isinstance(step, Leaky):
        return Leaky(step.name, shape, step.slope)
    return Clip(step.name, shape, step.low, step.high)


def _of_channels(step: Activation, shape: Shape) -> Activation | None:
    """Return an activation of rows as one of the maps before; None if its bounds differ there."""
    if isinstance(step, Leaky):
        slope = by_channel(step.slope, shape)
        return None if slope is None else Leaky(step.name, shape, slope)
    low, high = (by_channel(bound, shape) for bound in (step.low, step.high))
    return None if low is None or high is None else Clip(step.name, shape, low, high)


def by_channel(rows: Floats, shape: Shape) -> Floats | None:
    """Return numbers for rows as numbers for the channels of maps; None if they differ there."""
    maps = rows.reshape(shape[0], math.prod(shape[1:]))
    return maps[:, 0] if (maps == maps[:, :1]).all() else None


def _applied(step: Activation, values: Floats) -> Floats:
    if isinstance(step, Leaky):
        return np.where(values < 0, step.slope * values, values)
    return np.minimum(np.maximum(values, step.low), step.high)
