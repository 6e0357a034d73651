"""Scores of the model -> probabilities, ranking, :class:`Prediction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.labels import EMOTIONS


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says about one face.

    Immutable, hashable, comparable and picklable; all numbers are plain Python ones.

    Attributes
    ----------
    scores
        The model's raw scores, in the order of its labels.
    class_ids
        Indices into the model's labels in decreasing order of probability.
    ranking
        (label, probability) in decreasing order of probability. Probabilities are 0..1 and sum
        to 1.
    """

    scores: tuple[float, ...]
    class_ids: tuple[int, ...]
    ranking: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.ranking[0][0]

    @property
    def probability(self) -> float:
        """Probability of :attr:`label`, 0..1."""
        return self.ranking[0][1]

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each label, in the model's order; a new dictionary each time."""
        by_class = dict(zip(self.class_ids, self.ranking, strict=True))
        return dict(by_class[class_id] for class_id in range(len(by_class)))

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain types that ``json.dumps`` takes."""
        return {
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "ranking": [list(pair) for pair in self.ranking],
            "class_ids": list(self.class_ids),
            "scores": list(self.scores),
        }

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.1%})".replace("%", " %")


def postprocess(scores: ArrayLike, labels: Sequence[str] = EMOTIONS) -> list[Prediction]:
    """Turn the model's scores into predictions: softmax in float64, then the ranking.

    The class ids in decreasing order of probability, which the model zoo's own ``postprocess``
    returns, are ``postprocess(scores)[0].class_ids``.

    Parameters
    ----------
    scores
        Finite raw scores of shape (K,) for one face, or (N, K), with or without further axes of
        length 1, for N.
    labels
        The names of the K classes in the order of the scores, such as ``engine.labels``; by default
        those of FER+.

    Returns
    -------
    list of Prediction
        One for each face, in order; always a list. Classes of equal probability are ranked by
        score (probabilities far below the largest all round to 0), then by class id.

    Raises
    ------
    InputError
        Another shape, or scores that are not finite real numbers.
    ValueError
        If two labels are the same.
    """
    labels = tuple(labels)
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels is {labels!r}: expected another name for each class")
    rows = _rows(scores, len(labels))
    probabilities = _softmax(rows)
    # lexsort is stable and its last key comes first.
    orders = np.lexsort((-rows, -probabilities), axis=-1)
    return [
        Prediction(
            scores=tuple(row),
            class_ids=tuple(order),
            ranking=tuple((labels[c], chances[c]) for c in order),
        )
        for row, chances, order in zip(
            rows.tolist(), probabilities.tolist(), orders.tolist(), strict=True
        )
    ]


def postprocess_each(
    parts: Sequence[NDArray[np.float32] | InputError], scores: ArrayLike, labels: Sequence[str]
) -> list[Prediction | InputError]:
    """Return predictions, and between them the errors of what could not be used.

    Parameters
    ----------
    parts
        What `preprocess_each` returns: for each item its faces, or an error.
    scores
        The scores of all faces, in order.
    labels
        The names of the classes, in the order of the scores.
    """
    predictions = iter(postprocess(scores, labels))
    found: list[Prediction | InputError] = []
    for part in parts:
        if isinstance(part, InputError):
            found.append(part)
        else:
            found += [next(predictions) for _ in part]
    return found


def _rows(scores: ArrayLike, classes: int) -> NDArray[np.float64]:
    """Check scores and give them as float64 (N, classes)."""
    try:
        array = np.asarray(scores)
    except Exception as error:  # ragged lists, tensors on a GPU, whatever __array__ raises
        raise InputError(
            f"the scores cannot be read as an array ({error}); expected numbers of shape "
            f"(N, {classes}): convert them first"
        ) from error
    if array.dtype.kind not in "iuf":
        raise InputError(
            f"the scores have the type {array.dtype}; expected real numbers: pass the output of "
            "this model as it is"
        )
    shape = array.shape if array.ndim != 1 else (1, *array.shape)
    if len(shape) < 2 or shape[1] != classes or any(length != 1 for length in shape[2:]):
        raise InputError(
            f"the scores have the shape {array.shape}; expected ({classes},) or (N, {classes}): "
            "pass the output of the model as it is, and the labels of that model"
        )
    with np.errstate(over="ignore"):  # a long double may not fit: refused as infinite below
        rows = array.reshape(shape[0], classes).astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"the scores of face {row + 1} of {len(rows)} hold NaN or infinity; expected finite "
            "numbers: check the model and its input"
        )
    return rows


def _softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of each row; the largest score is taken off first, so that nothing overflows."""
    # The difference of two huge scores may be -inf, and a small exponential 0: both are right.
    with np.errstate(over="ignore", under="ignore"):
        exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
