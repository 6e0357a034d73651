"""The matrices of Winograd's minimal filtering algorithms F(m, 3), computed from their points.

A tile of m x m outputs of a 3x3 convolution is ``A^T [(G g G^T) * (B^T d B)] A`` over an input tile
d of (m+2) x (m+2): (m+2)^2 multiplications in place of 9 m^2.  The matrices follow from m + 1
interpolation points by the Toom-Cook construction: A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", arXiv:1509.09308; B. Barabasz et al., "Error Analysis and Improving
the Accuracy of Winograd Convolution for Deep Neural Networks", arXiv:1803.10986, who show that the
choice of points decides the error.

Points come as zero and pairs of opposite sign, so that partial sums serve two rows.  They are short
binary fractions, so that B^T and A^T hold exact float32 numbers.  For F(4, 3) the usual points
0, 1, -1, 2, -2 have four times the largest error, and twice the mean error, of those used here
(256 channels, normal weights, rectified normal inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Matrices:
    """F(m x m, 3x3).

    Attributes
    ----------
    tile
        m, the outputs of a tile along one side.
    points
        The interpolation points besides infinity: 0, then pairs p, -p.
    error
        The largest error to expect in float32 for a layer of up to 512 channels, relative to the
        largest output.
    """

    tile: int
    points: tuple[float, ...]
    error: float

    @property
    def side(self) -> int:
        """The inputs of a tile along one side, m + 2."""
        return self.tile + 2

    @property
    def input(self) -> Matrix:
        """B^T (m+2, m+2): row i holds the coefficients of the product of x - p over p != p_i."""
        polynomials = [
            np.poly([other for other in self.points if other != point]) for point in self.points
        ]
        rows = [np.append(polynomial[::-1], 0.0) for polynomial in polynomials]
        return _matrix([*rows, np.poly(self.points)[::-1]])

    @property
    def output(self) -> Matrix:
        """A^T (m, m+2): the powers of the points, and infinity's last one."""
        powers = np.vander(self.points, self.tile, increasing=True).T
        infinity = np.eye(self.tile)[:, -1:]
        return _matrix(np.hstack([powers, infinity]))

    @property
    def filter(self) -> Matrix:
        """G (m+2, 3): the powers of the points over the product of their distances."""
        distances = [
            np.prod([point - other for other in self.points if other != point])
            for point in self.points
        ]
        powers = np.vander(self.points, 3, increasing=True) / np.array(distances)[:, None]
        return _matrix(np.vstack([powers, [0.0, 0.0, 1.0]]))

    def transform_filter(self, weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return G g G^T of weights (O, C, 3, 3), in float64, as (m+2, m+2, C, O)."""
        g = np.asarray(self.filter)
        half = np.tensordot(g, weight.astype(np.float64), axes=(1, 2))  # i, O, C, kx
        return np.tensordot(half, g, axes=(3, 1)).transpose(0, 3, 2, 1)


def _matrix(rows: object) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in np.asarray(rows))


F2 = Matrices(tile=2, points=(0, 1, -1), error=2e-6)
F4 = Matrices(tile=4, points=(0, 5 / 8, -5 / 8, 3 / 2, -3 / 2), error=1e-5)
F6 = Matrices(tile=6, points=(0, 5 / 8, -5 / 8, 1, -1, 3 / 2, -3 / 2), error=3e-5)

MATRICES = {matrices.tile: matrices for matrices in (F2, F4, F6)}
"""By m, the outputs of a tile along one side."""
