"""Rule: a dense layer takes in the one behind it that only selects or scales its values.

1. Each column of the second matrix holds at most one number, so no sum is rounded anew.
2. Two other dense layers, or two with an activation between them, are left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.steps import Chain, Dense


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    for index, (first, second) in enumerate(zip(chain.steps, chain.steps[1:], strict=False)):
        if not isinstance(first, Dense) or not isinstance(second, Dense):
            continue
        if (np.count_nonzero(second.weight, axis=0) <= 1).all():
            matrix = second.weight.astype(np.float64)
            first.weight = first.weight.astype(np.float64) @ matrix
            first.bias = first.bias.astype(np.float64) @ matrix + second.bias
            first.shape = second.shape
            del chain.steps[index + 1]
            return True
    return False
