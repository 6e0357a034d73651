"""What is found in one frame of a video."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.photo import Face
from ferplus_tvm.vision.table import Row, row_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Frame:
    """The faces in one frame of a video.

    Immutable, comparable (but for the picture) and picklable.

    Attributes
    ----------
    index
        The number of the frame in its source, from 0.
    time
        Seconds from the beginning of the video, by the time stamps of the file.
    width, height
        Those of the upright picture, in pixels.
    faces
        The largest first; empty if there are none.  `Face.track` is the same number for the same
        person, `Face.prediction` is what the model says of this frame, and `Face.smoothed` the
        mean over time.
    picture
        The upright picture, uint8 (H, W, 3), RGB.
    source
        The path or address as it was given, or what messages call the source if it was neither.
    """

    index: int
    time: float
    width: int
    height: int
    faces: tuple[Face, ...]
    picture: Picture = field(repr=False, compare=False)
    source: str

    def draw(self, path: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draw a box around each face, with its number, the emotion and its probability.

        The emotion is the smoothed one, where there is one.

        Parameters
        ----------
        path
            Where to save the picture, in the format that its suffix names; by default nowhere.

        Returns
        -------
        PIL.Image.Image
            RGB, of the size of the frame.

        Raises
        ------
        OSError, ValueError
            If the picture cannot be saved there.
        """
        from ferplus_tvm.vision.draw import drawn

        image = drawn(self.picture, self.faces)
        if path is not None:
            image.save(path)
        return image

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the picture as plain types that ``json.dumps`` takes."""
        return {
            "source": self.source,
            "index": self.index,
            "time": self.time,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def rows(self) -> list[Row]:
        """Give a flat dictionary for each face, as a table has it.

        Returns
        -------
        list of dict
            With the keys of `Photo.rows`; ``frame`` is the index.
        """
        return [
            row_of(self.source, number, face, self.index, self.time)
            for number, face in enumerate(self.faces, 1)
        ]
