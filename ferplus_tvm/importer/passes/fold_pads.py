"""Rule: a border around maps becomes the pads of the layer behind it.

1. Before a convolution, if it is of zeros.
2. Before a MaxPool, if its number is no larger than any value within it, as 0 is behind a ReLU:
   the pads of a MaxPool are smaller than everything.
3. Before an AveragePool, if it is of zeros, both become a depthwise convolution, whose weights
   are all one over the size of the window.
4. Any other border is left alone, and so is one as wide as the window.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ferplus_tvm.importer.steps import Chain, Clip, Conv, Pad, Pool
from ferplus_tvm.importer.window import Window


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    return any([_fold(chain, step) for step in list(chain.steps) if isinstance(step, Pad)])


def _fold(chain: Chain, pad: Pad) -> bool:
    """Fold one border into the step behind it; return whether that was possible."""
    index = chain.steps.index(pad)
    after = chain.steps[index + 1] if index + 1 < len(chain.steps) else None
    if not isinstance(after, (Conv, Pool)):
        return False
    window = _padded(after.window, pad)
    if window is None:
        return False
    if isinstance(after, Conv) and pad.value == 0:
        after.window = window
    elif isinstance(after, Conv):
        return False
    elif after.op == "MaxPool" and pad.value <= _lower_bound(chain, index):
        after.window = window
    elif after.op == "AveragePool" and pad.value == 0:
        channels = after.shape[0]
        weight = np.full((channels, 1, *window.kernel), 1 / math.prod(window.kernel))
        bias = np.zeros(channels)
        chain.steps[index + 1] = Conv(after.name, after.shape, weight, bias, window, channels)
    else:
        return False
    del chain.steps[index]
    return True


def _padded(window: Window, pad: Pad) -> Window | None:
    """Return the window with the border as pads; None if one of them would be all border."""
    top, left, bottom, right = (a + b for a, b in zip(window.pads, pad.pads, strict=True))
    wider = replace(window, pads=(top, left, bottom, right))
    return wider if wider.touches else None


def _lower_bound(chain: Chain, index: int) -> float:
    """Return a number that no value before a step is below."""
    for step in reversed(chain.steps[:index]):
        if isinstance(step, Clip):
            return float(np.minimum(step.low, step.high).min())
        if not isinstance(step, Pool):
            break
    return -math.inf
