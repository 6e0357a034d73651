"""Rule: fold a scale and shift per channel into a layer.

1. Into the layer before it, also from behind its activation and poolings.  Behind bounds they
   are scaled too, and change places where the scale is negative:
   a * clip(z, low, high) + b is a * z + b, clipped to what a and b make of the bounds.
   Slopes below zero let a scale through that is not negative, and no shift; a MaxPool what is
   not negative; an AveragePool, and a Flatten with numbers per channel, everything.
2. Else into the layer behind it: a dense layer, or a convolution that adds no border of zeros
   (or any, if there is no shift).
3. At the input it stays where it is, if it can be written there as (x - a) * b.
4. One that fits neither layer is left alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ferplus_tvm.importer.graph import float32
from ferplus_tvm.importer.passes.place_activations import by_channel
from ferplus_tvm.importer.steps import (
    Affine,
    Chain,
    Clip,
    Conv,
    Dense,
    Flatten,
    Leaky,
    Pad,
    Pool,
    Step,
)


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    modified = False
    for step in list(chain.steps):
        if not isinstance(step, Affine):
            continue
        index = chain.steps.index(step)
        if index == 0 and is_scaling(step):
            continue
        if _fold_backward(chain, index, step) or _fold_forward(chain, index, step):
            del chain.steps[index]
            modified = True
    return modified


def is_scaling(step: Affine) -> bool:
    """Tell whether the step can be written as (x - offset) * factor in float32."""
    with np.errstate(all="ignore"):
        numbers = np.concatenate([float32(-step.shift / step.scale), float32(step.scale)])
    return bool(np.isfinite(numbers).all()) and bool(float32(step.scale).all())


def _fold_backward(chain: Chain, index: int, step: Affine) -> bool:
    """Fold into the nearest layer before; return whether that was possible."""
    scaled: list[tuple[Clip, Affine]] = []
    for at in range(index - 1, -1, -1):
        before = chain.steps[at]
        if isinstance(before, (Conv, Dense)):
            _scale_outputs(before, step)
            for clip, affine in scaled:
                _scale_bounds(clip, affine)
            return True
        if isinstance(before, Clip):
            scaled.append((before, step))
        elif isinstance(before, Flatten):
            maps = chain.shape_before(at)
            scale, shift = (by_channel(each, maps) for each in (step.scale, step.shift))
            if scale is None or shift is None:
                return False
            step = replace(step, shape=maps, scale=scale, shift=shift)
        elif not _passes(before, step):
            return False
    return False


def _passes(other: Step, step: Affine) -> bool:
    """Tell whether a scale and shift may as well stand on the other side of ``other``."""
    match other:
        case Leaky():
            return bool((step.scale >= 0).all()) and not step.shift.any()
        case Pool():
            return other.op == "AveragePool" or bool((step.scale >= 0).all())
        case Pad():
            return other.value == 0 and not step.shift.any()
    return False


def _scale_outputs(layer: Conv | Dense, step: Affine) -> None:
    """Scale and shift what a layer gives."""
    after = (-1, 1, 1, 1) if isinstance(layer, Conv) else (1, -1)
    layer.weight = layer.weight.astype(np.float64) * step.scale.reshape(after)
    layer.bias = layer.bias.astype(np.float64) * step.scale + step.shift


def _scale_bounds(clip: Clip, step: Affine) -> None:
    """Scale and shift the bounds of an activation; without a bound there stays none."""
    with np.errstate(invalid="ignore"):  # 0 * inf, which is replaced
        ends = [
            np.where(step.scale == 0, step.shift, bound * step.scale + step.shift)
            for bound in (clip.low, clip.high)
        ]
    # Where low is above high, everything becomes high.
    crossed = clip.low > clip.high
    ends[0] = np.where(crossed, ends[1], ends[0])
    clip.low, clip.high = np.minimum(*ends), np.maximum(*ends)


def _fold_forward(chain: Chain, index: int, step: Affine) -> bool:
    """Fold into the nearest layer behind; return whether that was possible."""
    for at in range(index + 1, len(chain.steps)):
        after = chain.steps[at]
        if isinstance(after, Dense):
            weight = after.weight.astype(np.float64)
            after.bias = after.bias.astype(np.float64) + step.shift @ weight
            after.weight = weight * step.scale[:, None]
            return True
        if isinstance(after, Conv):
            return _scale_inputs(after, step)
        if isinstance(after, Flatten):
            times = math.prod(chain.shape_before(at)[1:])
            scale, shift = step.scale.repeat(times), step.shift.repeat(times)
            step = replace(step, shape=after.shape, scale=scale, shift=shift)
        elif not _passes(after, step):
            return False
    return False


def _scale_inputs(layer: Conv, step: Affine) -> bool:
    """Scale and shift what a convolution gets; return whether its border allows that."""
    if any(layer.window.pads) and step.shift.any():
        return False
    outputs, inputs = layer.weight.shape[:2]
    # The inputs of each output channel, of which a group has only some.
    group = np.arange(outputs) * layer.group // outputs
    channels = group[:, None] * inputs + np.arange(inputs)
    weight = layer.weight.astype(np.float64)
    shifted = np.einsum("oikl,oi->o", weight, step.shift[channels])
    layer.bias = layer.bias.astype(np.float64) + shifted
    layer.weight = weight * step.scale[channels][:, :, None, None]
    return True
