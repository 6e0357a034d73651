"""What an engine does with pictures of faces."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Unpack, overload

import numpy as np

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.faces.postprocess import Prediction, postprocess, postprocess_each
from ferplus_tvm.faces.preprocess import preprocess, preprocess_each
from ferplus_tvm.faces.sources import Source
from ferplus_tvm.faces.views import Views, check_views, scores_of_views
from ferplus_tvm.runtime.session_cpu import Scores

_log = logging.getLogger(__name__)


class FaceMethods(ABC):
    """The methods of an engine that take pictures of one face each."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The names of the model's K classes, in the order of the scores."""

    @property
    @abstractmethod
    def face_shape(self) -> tuple[int, int, int]:
        """The shape of one face as `scores` takes it, (C, S, S)."""

    @abstractmethod
    def _scores(self, faces: Scores) -> Scores:
        """Score faces, float32 (N, C, S, S)."""

    def predict(
        self, source: Source, *, views: Views = "single", **options: Unpack[PreprocessOptions]
    ) -> Prediction:
        """Return the emotion of one face.

        Parameters
        ----------
        source
            An image of a face, as `ferplus_tvm.preprocess` takes it: a path, an encoded image as
            bytes, a binary file, a PIL image, or an array.
        views
            ``"single"``, or ``"mirror"``: the mean of the scores of the face and its mirror image.
        **options
            Those of `PreprocessOptions`, such as ``channel_order="BGR"`` for arrays of OpenCV.

        Returns
        -------
        Prediction
            The probability of each label.

        Raises
        ------
        InputError
            If the image cannot be used, or holds more than one face.
        EngineClosedError
            If the engine was closed.
        """
        check_views(views)
        channels, size, _ = self.face_shape
        faces = preprocess(source, size=size, channels=channels, **options)
        if len(faces) != 1:
            raise InputError(
                f"predict takes one face, but {len(faces)} were given: call predict_batch"
            )
        return self._predict(faces, views)[0]

    @overload
    def predict_batch(
        self,
        sources: Source | Sequence[Source],
        *,
        on_error: Literal["raise"] = "raise",
        views: Views = "single",
        **options: Unpack[PreprocessOptions],
    ) -> list[Prediction]: ...

    @overload
    def predict_batch(
        self,
        sources: Source | Sequence[Source],
        *,
        on_error: Literal["skip"],
        views: Views = "single",
        **options: Unpack[PreprocessOptions],
    ) -> list[Prediction | None]: ...

    @overload
    def predict_batch(
        self,
        sources: Source | Sequence[Source],
        *,
        on_error: Literal["return"],
        views: Views = "single",
        **options: Unpack[PreprocessOptions],
    ) -> list[Prediction | InputError]: ...

    def predict_batch(
        self,
        sources: Source | Sequence[Source],
        *,
        on_error: Literal["raise", "skip", "return"] = "raise",
        views: Views = "single",
        **options: Unpack[PreprocessOptions],
    ) -> list[Prediction] | list[Prediction | None] | list[Prediction | InputError]:
        """Return the emotions of any number of faces, in order.

        Parameters
        ----------
        sources
            A list of what `predict` takes, in any mixture, or an array of faces.
        on_error
            ``"raise"`` raises for the first image that cannot be used; ``"skip"`` puts None in
            its place, logs why as a warning, and answers the others; ``"return"`` puts the
            `InputError` in its place.
        views
            That of `predict`.
        **options
            Those of `PreprocessOptions`.

        Returns
        -------
        list
            A `Prediction` for each face, or what ``on_error`` puts in its place.

        Raises
        ------
        InputError
            If one of them cannot be used (the message says which).
        EngineClosedError
            If the engine was closed.
        TypeError
            For an option that does not exist.
        ValueError
            For a value that an option does not take.
        """
        check_views(views)
        channels, size, _ = self.face_shape
        if on_error == "raise":
            faces = preprocess(sources, size=size, channels=channels, **options)
            return self._predict(faces, views)
        if on_error not in ("skip", "return"):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise', 'skip' or 'return'")
        parts = preprocess_each(sources, size=size, channels=channels, **options)
        usable = [part for part in parts if not isinstance(part, InputError)]
        none = np.empty((0, *self.face_shape), np.float32)
        scores = scores_of_views(np.concatenate([none, *usable]), views, self._scores)
        answers = postprocess_each(parts, scores, self.labels)
        if on_error == "return":
            return answers
        for answer in answers:
            if isinstance(answer, InputError):
                _log.warning("skipped: %s", answer)
        return [None if isinstance(answer, InputError) else answer for answer in answers]

    def _predict(self, faces: Scores, views: Views) -> list[Prediction]:
        return postprocess(scores_of_views(faces, views, self._scores), self.labels)
