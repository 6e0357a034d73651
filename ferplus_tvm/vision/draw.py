"""Draw faces into a picture: a box in the emotion's colour, its name and probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.vision.crop import Picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

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


def colour_of(label: str, labels: Sequence[str] = EMOTIONS) -> str:
    """Return the colour of a label, as ``#rrggbb``: the same for the same model."""
    if label in _COLOURS:
        return _COLOURS[label]
    return _OTHERS[labels.index(label) % len(_OTHERS)]


def drawn(picture: Picture, faces: Sequence[Face]) -> Image.Image:
    """Return a copy of a picture with faces drawn into it.

    Lines and letters grow with the picture, and letters with the face, so that they can be read
    where the picture is seen as a whole.

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
    line = max(1, round(max(image.size) / 400))
    for face in reversed(faces):  # the largest on top
        colour = colour_of(face.prediction.label, tuple(face.prediction.probabilities))
        x, y, width, height = face.box
        box = (x, y, x + width, y + height)
        draw.rectangle(_grown(box, line), outline="black", width=3 * line)
        draw.rectangle(box, outline=colour, width=line)
    for face in reversed(faces):
        _write(draw, image.size, face, line)
    return image


def _write(draw: ImageDraw.ImageDraw, size: tuple[int, int], face: Face, line: int) -> None:
    """Write an emotion above the box, or where there is room in the picture."""
    from PIL import ImageFont

    prediction = face.prediction
    text = f"{prediction.label} {prediction.probability:.0%}".replace("%", " %")
    colour = colour_of(prediction.label, tuple(prediction.probabilities))
    letters = max(_SMALLEST_TEXT, max(size) / 60, min(face.box[2] / 6, max(size) / 20))
    font = ImageFont.load_default(letters)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = line + letters / 6
    wide, high = right - left + 2 * margin, bottom - top + 2 * margin
    if wide > size[0]:  # a tiny picture: shrink the letters as far as they can be read
        font = ImageFont.load_default(max(_SMALLEST_TEXT, letters * size[0] / wide))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        wide, high = right - left + 2 * margin, bottom - top + 2 * margin
    x, y, _, height = face.box
    above = y - high - line
    if above < 0:
        above = y + height + line  # below
    x = max(0, min(x - line, size[0] - wide))
    y = max(0, min(above, size[1] - high))
    draw.rectangle((x, y, x + wide, y + high), fill="black")
    draw.text((x + margin - left, y + margin - top), text, fill=colour, font=font)


def _grown(box: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left - by, top - by, right + by, bottom + by
