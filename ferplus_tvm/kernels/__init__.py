"""The kernels: one file per operator, each with numpy reference, config, definition.

All of them work on channels-last maps (N, H, W, C) whose channel count is a multiple of the
target's vector width: `padded` says how many channels are stored, and the stored channels beyond
the model's own are zero.
"""

from __future__ import annotations


def padded(channels: int, lanes: int) -> int:
    """Return how many channels are stored for ``channels``: the next multiple of ``lanes``."""
    return -(-channels // lanes) * lanes


def vectors_per_tile(channels: int, lanes: int, most: int) -> int:
    """Return the most vectors, up to ``most``, that split the stored channels evenly."""
    vectors = channels // lanes
    return next(count for count in range(most, 0, -1) if vectors % count == 0)
