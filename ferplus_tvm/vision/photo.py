"""What is found in a photo: faces, each with where it is and what the model says of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferplus_tvm.faces.postprocess import Prediction
from ferplus_tvm.vision.crop import SIDE, Box, Picture, Point, crop
from ferplus_tvm.vision.table import Row, row_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture.

    Immutable, hashable, comparable and picklable; all numbers are plain Python ones, in pixels of
    the upright picture, whose first pixel begins at (0, 0).

    Attributes
    ----------
    box
        (x, y, width, height) of the face; x and y are those of its upper left corner.  A face at
        the edge may reach out of the picture.
    points
        (x, y) of the right eye, the left eye, the tip of the nose, and the right and the left
        corner of the mouth, right being the person's own; empty if the detector gives none.
    score
        How sure the detector is that it is a face, 0..1.
    roll
        Degrees by which the face is turned clockwise in the picture's plane, -180..180, by its
        eyes; None without points.
    prediction
        What the model says.
    track
        In a video, the number of the person; None in a photo.
    smoothed
        In a video, the mean of what the model says of the person over time; None in a photo.
    """

    box: Box
    points: tuple[Point, ...]
    score: float
    roll: float | None
    prediction: Prediction
    track: int | None = None
    smoothed: Prediction | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain types that ``json.dumps`` takes."""
        return {
            "box": list(self.box),
            "points": [list(point) for point in self.points],
            "score": self.score,
            "roll": self.roll,
            "track": self.track,
            "prediction": self.prediction.to_dict(),
            "smoothed": None if self.smoothed is None else self.smoothed.to_dict(),
        }

    def __str__(self) -> str:
        x, y, width, height = map(round, self.box)
        return f"{self.prediction} at ({x}, {y}), {width} x {height}"


@dataclass(frozen=True)
class Photo:
    """The faces in a photo.

    Immutable, comparable, and picklable where its source is.

    Attributes
    ----------
    source
        The photo's path as it was given, or what messages call it if it was no file.
    width, height
        Those of the upright photo, in pixels.
    faces
        The largest first; empty if there are none.
    """

    source: str
    width: int
    height: int
    faces: tuple[Face, ...]
    _read: Callable[[], Picture] = field(repr=False, compare=False)

    def draw(self, path: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draw a box around each face, with the emotion and its probability.

        The photo is read again.

        Parameters
        ----------
        path
            Where to save the picture, in the format that its suffix names; by default nowhere.

        Returns
        -------
        PIL.Image.Image
            RGB, of the size of the photo.

        Raises
        ------
        InputError
            If the photo can be read no more.
        OSError, ValueError
            If the picture cannot be saved there.
        """
        from ferplus_tvm.vision.draw import drawn

        image = drawn(self._read(), self.faces)
        if path is not None:
            image.save(path)
        return image

    def crops(self) -> list[Image.Image]:
        """Cut out each face, as `Engine.predict` takes it: square, upright, RGB.

        The photo is read again.

        Returns
        -------
        list of PIL.Image.Image
            In the order of `faces`, each about as large as the face is in the photo.

        Raises
        ------
        InputError
            If the photo can be read no more.
        """
        import numpy as np
        from PIL import Image

        if not self.faces:
            return []
        picture = self._read()
        found = []
        for face in self.faces:
            size = max(1, round(SIDE * min(face.box[2:])))
            planes = crop(picture, face.box, face.roll, size=size, channels=3)
            found.append(Image.fromarray(np.moveaxis(np.rint(planes), 0, -1).astype(np.uint8)))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain types that ``json.dumps`` takes."""
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def rows(self) -> list[Row]:
        """Give a flat dictionary for each face, as a table has it.

        Returns
        -------
        list of dict
            With the keys ``source``, ``frame``, ``time``, ``face`` (its number, from 1), ``track``,
            ``x``, ``y``, ``w``, ``h``, ``score``, ``roll``, ``label``, ``probability``, one for the
            probability of each label, ``smoothed_label``, ``smoothed_probability`` and ``error``.
            What does not apply is None.
        """
        return [row_of(self.source, number, face) for number, face in enumerate(self.faces, 1)]
