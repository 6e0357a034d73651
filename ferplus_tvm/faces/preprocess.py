"""Pictures and arrays of faces -> the model's input, float32 (N, 1, 64, 64) of grey 0..255.

The levels are raw: the model's graph subtracts and scales by itself, and answers the same for
every face when its input was normalised before (onnx/models issue 117).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError, one_line

# Pillow is imported where a picture needs it: an app with arrays of its own starts 10 ms sooner.
if TYPE_CHECKING:
    from PIL import Image

SIDE = 64
"""Height and width of the model's input, in pixels."""

_FILES = (str, os.PathLike, bytes, bytearray, memoryview)


class SupportsArray(Protocol):
    """Whatever numpy can read as an array: ndarray, a CPU tensor of PyTorch, a JAX array."""

    def __array__(self) -> NDArray[Any]: ...


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"
    " | NDArray[Any] | SupportsArray"
)
"""One picture, or an array of one or more."""


def preprocess(
    source: Source | Sequence[Source],
    *,
    channel_order: Literal["RGB", "BGR"] = "RGB",
    value_range: tuple[float, float] | None = None,
    background: float = 255,
    resample: Literal["bilinear", "numpy"] = "bilinear",
) -> NDArray[np.float32]:
    """Turn pictures or arrays of face crops into the model's input.

    Decode (of several frames, the first), apply the EXIF orientation, composite transparency
    over ``background``, convert to luma (ITU-R BT.601), resample to 64 x 64. All of it in
    floating point: Pillow's ``resize((64, 64), BILINEAR)`` of an 8-bit grey picture, which rounds
    to whole levels after each axis, differs by at most one grey level, 0.3 on average.
    The aspect ratio is not kept: give a roughly square face crop, as a face detector does.

    Parameters
    ----------
    source
        A path; an encoded picture as bytes, bytearray or memoryview; a binary file, read from
        its current position to its end; a PIL image (its current frame, its EXIF orientation
        included); an array or anything with ``__array__``; or a list or tuple that mixes these.
        In a list each item gives the faces that it would give alone, in order, so an array of N
        faces gives N. Lists do not nest, and an empty one gives zero faces.

        Arrays, with C channels of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha):

        - (H, W): one grey picture.
        - (H, W, C): one picture, whenever the last axis is 1 to 4 long; else it is
          (N, H, W): N grey pictures. Channels-first colour (3, H, W) is therefore read as three
          grey pictures: transpose it before.
        - (N, 1, H, W): the model's own layout, whenever the second axis is 1 long; else it is
          (N, H, W, C): N pictures.

        Real numbers of any width, byte order, strides and alignment. A 64 x 64 grey float32
        array in 0..255 passes unchanged, bit for bit. Nothing is written to.
    channel_order
        Order of the colours in arrays: "BGR" for those of OpenCV. Pictures know their own.
    value_range
        (black, white) of all arrays, and of pictures of modes I and F, whose range no format
        fixes. By default it follows from the type: bool 0..1, uint16 0..65535, all else 0..255.
    background
        Grey level behind transparent pixels, 0..255. White by default, as most viewers show it.
    resample
        "bilinear": Pillow's triangle filter, which widens with the scale and so antialiases.
        "numpy": what the model zoo once documented, ``np.resize(img, (1, 64, 64))``, for those
        who must reproduce it. It repeats or cuts off the stored numbers (channels interleaved,
        not turned upright, palette indices as they are) and does not show the face.

    Returns
    -------
    numpy.ndarray
        A new C-contiguous float32 array of shape (N, 1, 64, 64), 0..255.

    Raises
    ------
    InputError
        Not a picture or array as described; a file that cannot be read or decoded; more pixels
        than ``PIL.Image.MAX_IMAGE_PIXELS``; numbers outside the range, NaN or infinity; or a
        float array that looks normalised (not constant, all within 0..1) without a
        ``value_range``.
    ValueError
        An option that does not exist.
    """
    options = _Options(channel_order, value_range, background, resample)
    return _stacked([face for item, name in _named(source) for face in _faces(item, name, options)])


def preprocess_each(
    source: Source | Sequence[Source], **options: Any
) -> list[NDArray[np.float32] | InputError]:
    """Return the faces of each item of a list, or why it cannot be used; options as above.

    Anything but a list or tuple counts as a list of one.  An array of several faces of which some
    cannot be used gives each of them alone.

    Raises
    ------
    ValueError, TypeError
        For an option's value, or an option, that does not exist.
    """
    unknown = sorted(set(options) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}: expected {', '.join(_DEFAULTS)}")
    checked = _Options(**{**_DEFAULTS, **options})
    found: list[NDArray[np.float32] | InputError] = []
    for item, name in _named(source):
        try:
            found.append(_stacked(list(_faces(item, name, checked))))
        except InputError as error:
            found += _face_by_face(item, name, checked, error)
    return found


def _face_by_face(
    item: Any, name: str, options: _Options, error: InputError
) -> list[NDArray[np.float32] | InputError]:
    """Return the faces of an array one by one; of what is none, or holds one, the error."""
    if not hasattr(item, "__array__"):
        return [error]
    try:
        pictures = _channels_last(_as_array(item, name), name)
    except InputError:
        return [error]
    if len(pictures) < 2:
        return [error]
    found: list[NDArray[np.float32] | InputError] = []
    for number, picture in enumerate(pictures, 1):
        try:
            face = _faces(picture, _face_name(number, len(pictures), name), options)
            found.append(_stacked(list(face)))
        except InputError as own:
            found.append(own)
    return found


def _face_name(number: int, count: int, name: str) -> str:
    return f"face {number} of {count} of {name}"


def _named(source: Any) -> list[tuple[Any, str]]:
    """Return every source with what messages call it."""
    if not isinstance(source, list | tuple):
        return [(source, _name(source))]
    count = len(source)
    return [(item, _name(item, f"item {i} of {count}")) for i, item in enumerate(source, 1)]


def _stacked(faces: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
    result = np.empty((len(faces), 1, SIDE, SIDE), dtype=np.float32)
    for i, face in enumerate(faces):
        result[i, 0] = face
    return result


@dataclass(frozen=True)
class _Options:
    """The keyword arguments of :func:`preprocess`, checked."""

    channel_order: str
    value_range: tuple[float, float] | None
    background: float
    resample: str

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order is {self.channel_order!r}; expected 'RGB' or 'BGR'")
        if self.resample not in ("bilinear", "numpy"):
            raise ValueError(f"resample is {self.resample!r}; expected 'bilinear' or 'numpy'")
        if not 0 <= self.background <= 255:
            raise ValueError(f"background is {self.background!r}; expected a grey level, 0..255")
        if self.value_range is not None:
            low, high = self.value_range
            if not (low < high and math.isfinite(high - low)):
                raise ValueError(
                    f"value_range is {self.value_range!r}; expected (black, white), two finite "
                    "numbers, the first one smaller"
                )


_DEFAULTS: dict[str, Any] = {
    "channel_order": "RGB",
    "value_range": None,
    "background": 255,
    "resample": "bilinear",
}


def _name(item: object, position: str = "") -> str:
    """Give what messages call the source: its path, its position in the list, or both."""
    if isinstance(item, str | os.PathLike):
        path = os.fsdecode(item)
        # A picture in base64 is a common mistake for a path: do not print all of it.
        what = repr(path if len(path) <= 200 else f"{path[:100]}...{path[-50:]}")
        return f"{position} ({what})" if position else what
    if position:
        return position
    return "the array" if hasattr(item, "__array__") else "the picture"


def _faces(item: Any, name: str, options: _Options) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield each face of one source as (64, 64), 0..255."""
    is_file = isinstance(item, _FILES) or callable(getattr(item, "read", None))
    if hasattr(item, "__array__") and not is_file:
        yield from _array_faces(_as_array(item, name), options.value_range, name, options)
        return
    from PIL import Image

    from ferplus_tvm.faces.images import decoded, grey_levels, read_picture, upright

    if isinstance(item, Image.Image):
        picture = decoded(item, name)
    elif is_file:
        picture = read_picture(item, name)
    else:
        raise InputError(
            f"{name} is of type {type(item).__name__}; expected a path, an encoded picture "
            "(bytes or a binary file), a PIL image or an array: convert it first"
        )
    if options.resample == "bilinear":
        picture = upright(picture)
    if picture.mode in ("I", "F"):
        yield from _array_faces(np.asarray(picture), options.value_range, name, options)
    elif options.resample == "bilinear":
        yield _bilinear(grey_levels(picture, options.background, name))
    else:
        yield from _array_faces(np.asarray(picture), None, name, options)


def _as_array(item: Any, name: str) -> NDArray[Any]:
    """Read an array of real numbers."""
    try:
        array = np.asarray(item)
    except Exception as error:  # frameworks raise what they like, for instance for a GPU tensor
        raise InputError(
            f"{name} of type {type(item).__name__} cannot be read as an array "
            f"({one_line(error)}); expected numbers in main memory: convert it to a numpy array "
            "first"
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{name} has the type {array.dtype}; expected real numbers, for example uint8: "
            "convert it first"
        )
    return array


def _array_faces(
    array: NDArray[Any], value_range: tuple[float, float] | None, name: str, options: _Options
) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield each face of an array as (64, 64), 0..255."""
    pictures = _channels_last(array, name)
    low, high = value_range or _range_of_type(array.dtype)
    if array.size:
        try:
            _check_values(array, low, high, value_range is not None, name)
        except InputError:
            count = len(pictures)
            for number, picture in enumerate(pictures if count > 1 else (), 1):
                named = _face_name(number, count, name)
                _check_values(picture, low, high, value_range is not None, named)
            raise

    def unit(numbers: NDArray[Any]) -> NDArray[np.float64]:
        return (numbers.astype(np.float64) - low) / (high - low)

    for picture in pictures:
        if options.resample == "numpy":
            yield unit(np.resize(picture, (SIDE, SIDE))) * 255
            continue
        channels = [unit(picture[..., c]) for c in range(picture.shape[-1])]
        if len(channels) < 3:
            levels = channels[0] * 255
        else:
            red, green, blue = channels[:3] if options.channel_order == "RGB" else channels[2::-1]
            levels = (0.299 * red + 0.587 * green + 0.114 * blue) * 255
        if len(channels) in (2, 4):
            levels = channels[-1] * levels + (1 - channels[-1]) * options.background
        yield _bilinear(levels.astype(np.float32))


def _channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    """View an array of any accepted shape as (N, H, W, C), by the rules of :func:`preprocess`."""
    shape = array.shape
    last_is_channels = array.ndim > 0 and 1 <= shape[-1] <= 4
    if array.ndim == 2:
        pictures = array[np.newaxis, :, :, np.newaxis]
    elif array.ndim == 3:
        pictures = array[np.newaxis] if last_is_channels else array[..., np.newaxis]
    elif array.ndim == 4 and shape[1] == 1:
        pictures = np.moveaxis(array, 1, -1)
    elif array.ndim == 4 and last_is_channels:
        pictures = array
    else:
        raise InputError(
            f"{name} has the shape {shape}; expected (H, W), (H, W, C), (N, H, W), (N, H, W, C) "
            "with 1 to 4 channels C, or (N, 1, H, W): reshape it, with the channels last"
        )
    if 0 in pictures.shape[1:]:
        raise InputError(
            f"{name} has the shape {shape}; expected pictures of at least 1 x 1 pixels: "
            "check how it was cropped"
        )
    return pictures


def _range_of_type(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Black and white of an array whose caller does not say."""
    if dtype.kind == "b":
        return 0, 1
    return (0, 65535) if dtype.kind == "u" and dtype.itemsize == 2 else (0, 255)


def _check_values(
    array: NDArray[Any], low: float, high: float, range_stated: bool, name: str
) -> None:
    """Refuse NaN, infinity, numbers outside the range, and floats that look normalised."""
    smallest, largest = float(array.min()), float(array.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise InputError(
            f"{name} holds NaN or infinity; expected numbers in {low:g}..{high:g}: replace them"
        )
    got = f"{name} holds numbers in {smallest:g}..{largest:g}"
    if not low <= smallest <= largest <= high:
        raise InputError(
            f"{got}; expected {low:g}..{high:g}: clip them, or state their black and white, "
            "for example value_range=(-1, 1)"
        )
    if not range_stated and array.dtype.kind == "f" and smallest < largest <= 1:
        raise InputError(
            f"{got}, so it looks normalised; expected raw grey levels in 0..255: "
            "state value_range=(0, 1), or value_range=(0, 255) if it is as dark as that"
        )


def _bilinear(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample (H, W) to (64, 64); of that size already, return it as it is."""
    if levels.shape == (SIDE, SIDE):
        return levels
    from PIL import Image

    resized = Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    # Float weights may sum to a hair over one.
    return np.asarray(np.clip(np.asarray(resized), 0, 255), dtype=np.float32)
