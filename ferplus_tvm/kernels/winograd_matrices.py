"""The matrices of Winograd's minimal filtering algorithms F(m, 3), as data.

A tile of m x m outputs of a 3x3 convolution is ``A^T [(G g G^T) * (B^T d B)] A`` over an input tile
d of (m+2) x (m+2): (m+2)^2 multiplications in place of 9 m^2.

Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308,
section 4.  F(2,3) interpolates at 0, 1, -1; F(4,3) at 0, 1, -1, 2, -2.  The larger tile saves more
and loses more: its matrices mix numbers of different size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Algorithm:
    """F(m x m, 3x3).

    tile
        m, the outputs of a tile along one side.
    input, filter, output
        B^T (m+2, m+2), G (m+2, 3) and A^T (m, m+2).
    error
        the largest error to expect in float32 for a layer of up to 512 channels, relative to the
        largest output.
    """

    tile: int
    input: Matrix
    filter: Matrix
    output: Matrix
    error: float

    @property
    def side(self) -> int:
        """The inputs of a tile along one side, m + 2."""
        return self.tile + 2

    def transform_filter(self, weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return G g G^T of weights (O, C, 3, 3), in float64, as (m+2, m+2, C, O)."""
        g = np.asarray(self.filter)
        half = np.tensordot(g, weight.astype(np.float64), axes=(1, 2))  # i, O, C, kx
        return np.tensordot(half, g, axes=(3, 1)).transpose(0, 3, 2, 1)


F2 = Algorithm(
    tile=2,
    input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    filter=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, -1)),
    error=2e-6,
)

F4 = Algorithm(
    tile=4,
    input=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    filter=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    error=3e-5,
)

ALGORITHMS = {algorithm.tile: algorithm for algorithm in (F2, F4)}
