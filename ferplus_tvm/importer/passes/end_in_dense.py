"""Rule: the last layer is a dense one without an activation.

1. Behind a pooling, a convolution or an activation a dense layer follows that hands the scores on.
2. A chain that ends in more values than there can be scores is left alone.
"""

from __future__ import annotations

import math

from ferplus_tvm.artifact.validate import CLASSES
from ferplus_tvm.importer.steps import Affine, Chain, Dense, Flatten, identity


def apply(chain: Chain) -> bool:
    """Apply the rule; return whether it changed the chain."""
    last = chain.steps[-1] if chain.steps else None
    if last is None or isinstance(last, (Affine, Dense)) or math.prod(last.shape) not in CLASSES:
        return False
    rows = (math.prod(last.shape),)
    if len(last.shape) == 3:
        chain.steps.append(Flatten(f"{last.name}_flatten", rows))
    chain.steps.append(identity(f"{last.name}_scores", rows))
    return True
