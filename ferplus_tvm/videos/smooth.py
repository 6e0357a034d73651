"""The mean of a person's probabilities over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.faces.postprocess import Prediction, postprocess

_LEAST = 1e-300
"""A probability that is written as a score, whose logarithm must be finite."""


class Smoother:
    """The mean of the predictions of one person, in which the older ones count less.

    A prediction weighs ``exp(-age / seconds)``, its age being that at the time of the newest one.
    So the mean is that of probabilities, whatever the frame rate, and it sums to 1.

    Parameters
    ----------
    seconds
        After how many seconds a prediction weighs ``1/e`` of what it did; 0 keeps the newest alone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._time = -math.inf
        self._sum: NDArray[np.float64] | float = 0.0
        self._weight = 0.0

    def add(self, time: float, prediction: Prediction) -> Prediction:
        """Take in a prediction, and return the mean.

        Parameters
        ----------
        time
            Seconds; not before the last one.
        prediction
            Of the same model as those before.

        Returns
        -------
        Prediction
            Its scores are the logarithms of the mean probabilities.
        """
        if self._seconds == 0:
            return prediction
        kept = math.exp(min(0.0, self._time - time) / self._seconds)
        self._time = time
        shares = prediction.probabilities
        self._sum = kept * self._sum + np.array(list(shares.values()))
        self._weight = kept * self._weight + 1
        mean = np.maximum(self._sum / self._weight, _LEAST)
        return postprocess(np.log(mean), tuple(shares))[0]
