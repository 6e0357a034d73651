"""JPEG files decoded at a part of their size, which takes a third of the time for a large photo.

A JPEG holds the cosine transforms of blocks of 8 x 8 pixels, and a half, a quarter or an eighth of
each block can be computed at once, without its pixels.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferplus_tvm.faces.levels import check_saved_levels
from ferplus_tvm.faces.options import CheckedOptions
from ferplus_tvm.vision.crop import Picture
from ferplus_tvm.vision.detections import Detection, placed
from ferplus_tvm.vision.read import read_picture

_PARTS = (8, 4, 2)
_FORMATS = ("JPEG", "MPO")  # the latter holds several pictures, of which the first counts
_START = b"\xff\xd8"


@dataclass(frozen=True)
class Scaled:
    """An upright photo, perhaps smaller than it is.

    Attributes
    ----------
    picture
        uint8 (H, W, 3), RGB.
    width, height
        Those of the photo itself, in pixels.
    part
        Pixels of the photo for one of the picture, a side.
    beyond
        By how many pixels of the photo the picture begins to the left of it and above it.  A side
        that ``part`` does not divide was filled up at its end, which may have been turned there.
    """

    picture: Picture
    width: int
    height: int
    part: int = 1
    beyond: tuple[int, int] = (0, 0)

    def in_photo(self, face: Detection) -> Detection:
        """Return a face of the picture in pixels of the photo."""
        left, top = self.beyond
        return placed(face, self.part, -left, -top)

    def in_picture(self, face: Detection) -> Detection:
        """Return a face of the photo in pixels of the picture."""
        left, top = self.beyond
        return placed(face, 1 / self.part, left / self.part, top / self.part)


def read_at_least(
    item: Any, name: str, options: CheckedOptions, side: float, least_part: int = 2
) -> Scaled:
    """Read one photo, a large JPEG at the smallest part of its size that is enough.

    Parameters
    ----------
    item, name, options
        Those of `read_picture`.
    side
        How many pixels of the longer side are enough.
    least_part
        The part, 2 for a half, from which decoding less is worth it.

    Raises
    ------
    InputError
        As `read_picture`.
    """
    scaled = _reduced(item, side, least_part)
    if scaled is None:
        picture = read_picture(item, name, options)
        scaled = Scaled(picture, picture.shape[1], picture.shape[0])
    return scaled


def _reduced(item: Any, side: float, least_part: int) -> Scaled | None:
    """Decode a path or bytes of a JPEG that is large enough; None for any other photo.

    What cannot be decoded, or looks like none, is left to `read_picture`, which says why.
    """
    encoded = isinstance(item, bytes | bytearray)
    if not (item.startswith(_START) if encoded else _is_file(item)):
        return None
    from PIL import Image

    from ferplus_tvm.faces.pixels import ends_first, upright, upright_size

    try:
        with Image.open(io.BytesIO(item) if encoded else item, formats=_FORMATS) as image:
            stored = image.size
            fits = (each for each in _PARTS if max(stored) >= each * side and each >= least_part)
            part = next(fits, None)
            limit = Image.MAX_IMAGE_PIXELS
            if part is None or (limit is not None and stored[0] * stored[1] > limit):
                return None
            width, height = upright_size(image)
            at_left, at_top = ends_first(image)
            image.draft(None, (max(stored[0] // part, 1), max(stored[1] // part, 1)))
            part = round(max(stored) / max(image.size))  # a narrow photo may be left larger
            turned = upright(image)
            picture = np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))
        beyond = (
            picture.shape[1] * part - width if at_left else 0,
            picture.shape[0] * part - height if at_top else 0,
        )
        check_saved_levels(picture, "the photo")
    except Exception:  # Pillow's are of many classes
        return None
    return Scaled(picture, width, height, part, beyond)


def _is_file(item: Any) -> bool:
    """Whether an item is the path of a file: what is read of a pipe is gone."""
    return isinstance(item, str | os.PathLike) and os.path.isfile(item)
