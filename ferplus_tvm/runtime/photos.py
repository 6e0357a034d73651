"""What an engine does with whole photos."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Unpack, cast, overload

from numpy.typing import ArrayLike

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.faces.postprocess import Prediction
from ferplus_tvm.faces.sources import Source, name_of
from ferplus_tvm.faces.views import Views, check_views
from ferplus_tvm.runtime.faces import FaceMethods
from ferplus_tvm.runtime.pictures import WholePictures
from ferplus_tvm.vision.analyze import PhotoSteps, analyze_each, crops_of
from ferplus_tvm.vision.boxes import as_detections
from ferplus_tvm.vision.find import Detect, Detector, FindOptions, checked
from ferplus_tvm.vision.photo import Photo
from ferplus_tvm.vision.read import checked_options, each_photo, read_picture

_log = logging.getLogger(__name__)


class PhotoOptions(PreprocessOptions, total=False):
    """The keyword arguments of `Engine.analyze`, all optional.

    Attributes
    ----------
    min_face
        The least width and height of a face, in pixels of the photo; by default 24, or 10 with
        ``small_faces``.
    min_score
        The least score of a face, 0..1; 0.6 by default.
    small_faces
        Whether to look at the photo in larger scales too, in tiles, until a face of ``min_face``
        pixels is 20 pixels wide there.  The time grows with the size of the photo.
    any_rotation
        Whether to look at the photo in four positions, for those whose EXIF orientation is lost
        and for faces that lie.  It takes four times as long.
    max_side
        To how many pixels a longer side is shrunk before faces are looked for; 640 by default.
        Larger values find smaller faces and lose large ones, and need a detector that was compiled
        for such sizes.
    views
        ``"single"``, the default, or ``"mirror"``: the mean of the scores of each face and its
        mirror image, which takes twice as long.
    detector
        A face detector of your own in place of the library's: it is called with the picture,
        shrunk to ``max_side``, as uint8 (H, W, 3), RGB, and returns what `Engine.predict_faces`
        takes as boxes.
    """

    min_face: float | None
    min_score: float
    small_faces: bool
    any_rotation: bool
    max_side: int
    views: Views
    detector: Detector | None


class PhotoMethods(FaceMethods, WholePictures):
    """The methods of an engine that take whole photos."""

    def analyze(self, x: Source, **options: Unpack[PhotoOptions]) -> Photo:
        """Find the faces in a photo, and return the emotion of each.

        Each face is cropped as the model was trained: a square of 1.3 times the face's width,
        turned upright where it is turned by more than 20 degrees.

        Parameters
        ----------
        x
            A photo, as `predict` takes a face: a path, an encoded image as bytes, a binary file, a
            PIL image, or an array of one picture.  It may have any shape.
        **options
            Those of `PhotoOptions` and of `PreprocessOptions`, such as ``min_face=40`` or, for
            arrays of OpenCV, ``channel_order="BGR"``.

        Returns
        -------
        Photo
            The faces, the largest first; none is an answer, too.

        Raises
        ------
        InputError
            If the photo cannot be used, or the boxes of a detector of your own are none.
        NoDetectorError
            If the library holds no face detector, or one for smaller sizes than ``max_side``, and
            none is given.
        EngineClosedError
            If the engine was closed.
        TypeError, ValueError
            For an option that does not exist, or a value that it does not take.
        """
        photo: Photo = self._analyzed([(x, name_of(x))], options, "raise")[0]
        return photo

    @overload
    def analyze_batch(
        self,
        photos: Source | Sequence[Source],
        *,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[PhotoOptions],
    ) -> list[Photo]: ...

    @overload
    def analyze_batch(
        self,
        photos: Source | Sequence[Source],
        *,
        on_error: Literal["skip"],
        **options: Unpack[PhotoOptions],
    ) -> list[Photo | None]: ...

    @overload
    def analyze_batch(
        self,
        photos: Source | Sequence[Source],
        *,
        on_error: Literal["return"],
        **options: Unpack[PhotoOptions],
    ) -> list[Photo | InputError]: ...

    def analyze_batch(
        self,
        photos: Source | Sequence[Source],
        *,
        on_error: Literal["raise", "skip", "return"] = "raise",
        **options: Unpack[PhotoOptions],
    ) -> list[Photo] | list[Photo | None] | list[Photo | InputError]:
        """Find the faces in any number of photos, and return the emotion of each.

        The faces of all photos are answered in one batch.

        Parameters
        ----------
        photos
            A list of what `analyze` takes, in any mixture, or an array of pictures.
        on_error
            ``"raise"`` raises for the first photo that cannot be used; ``"skip"`` puts None in its
            place, logs why as a warning, and answers the others; ``"return"`` puts the
            `InputError` in its place.
        **options
            Those of `analyze`.

        Returns
        -------
        list
            A `Photo` for each, or what ``on_error`` puts in its place.

        Raises
        ------
        InputError
            If one of them cannot be used (the message says which).
        NoDetectorError
            If the library holds no face detector, or one for smaller sizes than ``max_side``, and
            none is given.
        EngineClosedError
            If the engine was closed.
        TypeError, ValueError
            For an option that does not exist, or a value that it does not take.
        """
        if on_error not in ("raise", "skip", "return"):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise', 'skip' or 'return'")
        return self._analyzed(each_photo(photos), options, on_error)

    def predict_faces(
        self,
        x: Source,
        boxes: Sequence[Any] | ArrayLike,
        *,
        views: Views = "single",
        **options: Unpack[PreprocessOptions],
    ) -> list[Prediction]:
        """Return the emotion of each face of a photo whose place is known.

        For those with a face detector of their own; the faces are cropped as `analyze` does.

        Parameters
        ----------
        x
            A photo, as `analyze` takes it.
        boxes
            Of N faces, in pixels of the upright photo: real numbers (N, 4), x, y, width and height,
            x and y being the upper left corner; (N, 15) as ``cv2.FaceDetectorYN`` gives them, with
            points and score; or objects with ``box`` and perhaps ``points``, as `detect` returns.
        views
            ``"single"`` or ``"mirror"``, as `PhotoOptions` says.
        **options
            Those of `PreprocessOptions`.

        Returns
        -------
        list of Prediction
            One for each box, in order.

        Raises
        ------
        InputError
            If the photo cannot be used, or the boxes are none: without size, outside of the photo,
            as corners (left, top, right, bottom), or as parts of the photo's size.
        EngineClosedError
            If the engine was closed.
        TypeError, ValueError
            For an option that does not exist, or a value that it does not take.
        """
        check_views(views)
        picture = read_picture(x, name_of(x), checked_options(options))
        detections = as_detections(boxes, picture.shape[1], picture.shape[0])
        return self._predict(crops_of(picture, detections, self.face_shape), views)

    def steps(self, options: Mapping[str, Any]) -> PhotoSteps:
        """Check the options of `PhotoOptions`, and return what is done with a photo.

        For the package's other ways to whole pictures; an app calls `analyze`.

        Raises
        ------
        NoDetectorError
            If the library's face detector was compiled for smaller sizes than ``max_side``.
        TypeError, ValueError
            For an option that does not exist, or a value that it does not take.
        """
        given = dict(options)
        names = tuple(PhotoOptions.__annotations__)
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise TypeError(f"there is no option {unknown[0]!r}: expected {', '.join(names)}")
        views: Views = given.pop("views", "single")
        check_views(views)
        detector = given.pop("detector", None)
        finding = {each.name for each in fields(FindOptions)} & set(given)
        find = FindOptions(**{name: given.pop(name) for name in finding})
        if detector is None:
            self._expect_sides(find.max_side)
            detect: Detect = functools.partial(self.detect, min_score=find.min_score)
        else:
            detect = checked(detector)
        return PhotoSteps(
            detect,
            lambda faces: self._predict(faces, views),
            self.face_shape,
            find,
            checked_options(cast(PreprocessOptions, given)),
        )

    def _analyzed(
        self, photos: Sequence[tuple[Any, str]], options: PhotoOptions, on_error: str
    ) -> list[Any]:
        steps = self.steps(cast(Mapping[str, Any], options))
        answers: list[Any] = analyze_each(photos, steps, stop=on_error == "raise")
        if on_error == "skip":
            for number, answer in enumerate(answers):
                if isinstance(answer, InputError):
                    _log.warning("skipped: %s", answer)
                    answers[number] = None
        return answers
