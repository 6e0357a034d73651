"""Score a face as it is, or together with its mirror image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Views = Literal["single", "mirror"]
"""``"single"``: a face as it is; ``"mirror"``: the mean of its scores and its mirror image's."""


def check_views(views: str) -> None:
    """Refuse views that do not exist.

    Raises
    ------
    ValueError
        If it is another word.
    """
    if views not in ("single", "mirror"):
        raise ValueError(f"views is {views!r}: expected 'single' or 'mirror'")


def scores_of_views(
    faces: NDArray[np.float32],
    views: Views,
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Score faces, all views of all of them in one batch.

    Parameters
    ----------
    faces
        (N, C, S, S).
    views
        Which views count.
    score
        Scores faces.

    Returns
    -------
    numpy.ndarray
        float32 (N, K), the mean over the views.
    """
    if views == "single":
        return score(faces)
    both = score(np.concatenate([faces, faces[..., ::-1]]))
    return (both[: len(faces)] + both[len(faces) :]) / np.float32(2)
