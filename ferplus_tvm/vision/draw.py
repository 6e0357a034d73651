"""Draw faces into a picture: a box in the emotion's colour, its name and probability.

In a video also the number of the track, and the emotion is the smoothed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.vision.crop import Box, Picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from ferplus_tvm.faces.postprocess import Prediction
    from ferplus_tvm.vision.photo import Face

# Of FER+'s emotions; Okabe and Ito's palette, which people with colour blindness tell apart.
_COLOURS = dict(
    zip(
        EMOTIONS,
        (
            *("#ffffff", "#f0e442", "#56b4e9", "#0072b2"),
            *("#d55e00", "#009e73", "#cc79a7", "#e69f00"),
        ),
        strict=True,
    )
)
_OTHERS = tuple(_COLOURS.values())[1:]

_SMALLEST_TEXT = 10  # pixels

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


def colour_of(label: str, labels: Sequence[str] = EMOTIONS) -> str:
    """Return the colour of a label, as ``#rrggbb``: the same for the same model."""
    if label in _COLOURS:
        return _COLOURS[label]
    return _OTHERS[labels.index(label) % len(_OTHERS)]


def drawn(picture: Picture, faces: Sequence[Face]) -> Image.Image:
    """Return a copy of a picture with faces drawn into it.

    Lines and letters grow with the face, within what can be seen where the picture is looked at as
    a whole.

    Parameters
    ----------
    picture
        An upright picture, uint8 (H, W, 3), RGB.
    faces
        In pixels of the picture.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image)
    longest = max(image.size)
    for face in reversed(faces):  # the largest on top
        line = max(1, round(min(longest / 400, face.box[2] / 16)))
        box = _corners(face.box)
        draw.rectangle(_grown(box, line), outline="black", width=3 * line)
        draw.rectangle(box, outline=_colour(face), width=line)
    taken = [_corners(face.box) for face in faces]
    for face in faces:
        letters = min(max(face.box[2] / 5, longest / 90), longest / 25)
        taken.append(_write(draw, image.size, face, max(_SMALLEST_TEXT, letters), taken))
    return image


def _write(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    face: Face,
    letters: float,
    taken: Sequence[Corners],
) -> Corners:
    """Write an emotion beside its box, if it can be over no other; return where it stands."""
    from PIL import ImageFont

    text = _text(face)
    margin = letters / 4
    font = ImageFont.load_default(letters)
    wide = draw.textlength(text, font=font) + 2 * margin
    if wide > size[0]:  # a tiny picture
        font = ImageFont.load_default(max(_SMALLEST_TEXT, letters * size[0] / wide))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 2 * margin, bottom - top + 2 * margin
    x1, y1, x2, y2 = _grown(_corners(face.box), margin)
    places = [
        _inside(corner, (wide, high), size)
        for corner in ((x1, y1 - high), (x1, y2), (x2 - wide, y1 - high), (x2, y1), (x1 - wide, y1))
    ]
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    place = next(free, places[0])
    colour = _colour(face)
    draw.rectangle(place, fill=colour, outline="black")
    draw.text(
        (place[0] + margin - left, place[1] + margin - top), text, fill=_ink(colour), font=font
    )
    return place


def _text(face: Face) -> str:
    """Return what is written of a face: in a video also its track."""
    track = "" if face.track is None else f"{face.track}: "
    shown = _shown(face)
    return f"{track}{shown.label} {shown.probability:.0%}".replace("%", " %")


def _colour(face: Face) -> str:
    shown = _shown(face)
    return colour_of(shown.label, tuple(shown.probabilities))


def _shown(face: Face) -> Prediction:
    """Return what is drawn: in a video the smoothed prediction, which does not flicker."""
    return face.smoothed or face.prediction


def _ink(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    from PIL import ImageColor

    red, green, blue = ImageColor.getrgb(colour)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def _inside(
    corner: tuple[float, float], extent: tuple[float, float], size: tuple[int, int]
) -> Corners:
    """Move a rectangle into the picture."""
    x, y = (
        max(0.0, min(at, whole - 1 - length))
        for at, length, whole in zip(corner, extent, size, strict=True)
    )
    return x, y, x + extent[0], y + extent[1]


def _overlap(one: Corners, other: Corners) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(
        one[3], other[3]
    )


def _corners(box: Box) -> Corners:
    x, y, width, height = box
    return x, y, x + width, y + height


def _grown(corners: Corners, by: float) -> Corners:
    left, top, right, bottom = corners
    return left - by, top - by, right + by, bottom + by
