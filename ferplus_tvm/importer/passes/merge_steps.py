"""Rule: make one step of two that are of one kind.

1. Two scales and shifts become one, and one that changes nothing goes.
2. Two activations become one where one says the same: bounds within bounds, slope after slope,
   and a slope below zero beside a bound that lets nothing below zero through.  A slope of 0 is
   a bound at 0.
3. Two borders of the same number become one.
4. Other neighbours are left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.steps import Affine, Chain, Clip, Leaky, Pad, Step


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    merged: list[Step] = []
    modified = False
    for step in chain.steps:
        one = _merge(merged[-1], step) if merged else None
        if one is not None:
            merged[-1] = one
            modified = True
        else:
            merged.append(step)
    for index, step in enumerate(merged):
        if isinstance(step, Leaky) and not step.slope.any():
            unbounded = np.full(step.slope.shape, np.inf)
            merged[index] = Clip(step.name, step.shape, np.zeros_like(unbounded), unbounded)
            modified = True
    kept = [step for step in merged if not _is_nothing(step)]
    modified = modified or len(kept) < len(merged)
    chain.steps = kept
    return modified


def _is_nothing(step: Step) -> bool:
    """Tell whether a scale and shift, or a slope, changes nothing."""
    if isinstance(step, Leaky):
        return bool((step.slope == 1).all())
    return isinstance(step, Affine) and bool((step.scale == 1).all()) and not step.shift.any()


def _merge(first: Step, second: Step) -> Step | None:
    """Return two steps as one, None if there is no such step."""
    match first, second:
        case Affine(), Affine():
            return Affine(
                first.shape,
                first.scale * second.scale,
                first.shift * second.scale + second.shift,
                second.scaled_by or first.scaled_by,
                second.shifted_by or first.shifted_by,
            )
        case Clip(), Clip():
            low, high = (
                np.minimum(np.maximum(bound, second.low), second.high)
                for bound in (first.low, first.high)
            )
            return Clip(first.name, first.shape, low, high)
        case Leaky(), Leaky() if first.is_increasing:
            return Leaky(first.name, first.shape, first.slope * second.slope)
        case Leaky(), Clip() if first.is_increasing and (second.low >= 0).all():
            return second
        case Clip(), Leaky() if (np.minimum(first.low, first.high) >= 0).all():
            return first
        case Pad(), Pad() if first.value == second.value:
            top, left, bottom, right = (a + b for a, b in zip(first.pads, second.pads, strict=True))
            return Pad(first.name, second.shape, (top, left, bottom, right), first.value)
    return None
