"""Images and arrays of faces -> the model's input, float32 (N, C, S, S) of grey or RGB 0..255.

The levels are raw: the model's graph subtracts and scales by itself, and answers the same for
every face when its input was normalised before (onnx/models issue 117).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.arrays import array_faces, as_array
from ferplus_tvm.faces.onnx_tensor import tensor_of
from ferplus_tvm.faces.options import CheckedOptions, PreprocessOptions
from ferplus_tvm.faces.resample import bilinear
from ferplus_tvm.faces.shapes import channels_last
from ferplus_tvm.faces.sources import Source, is_encoded, name_of_face, named
from ferplus_tvm.faces.whole import warn_if_whole


def preprocess(
    source: Source | Sequence[Source],
    *,
    size: int = 64,
    channels: int = 1,
    **options: Unpack[PreprocessOptions],
) -> NDArray[np.float32]:
    """Turn images or arrays of face crops into the model's input.

    An image is decoded (of several frames, the first), turned as its EXIF orientation says,
    composited over ``background`` where it is transparent, converted to luma (ITU-R BT.601) or RGB,
    and resampled to ``size`` x ``size``.  All of it is done in floating point: Pillow's
    ``resize((64, 64), BILINEAR)`` of an 8-bit grey image, which rounds to whole levels after each
    axis, differs by at most one grey level, 0.3 on average.  The aspect ratio is not kept: give a
    roughly square face crop, as a face detector does.  A picture that is plainly none, such as a
    camera's at full size, is logged as a warning, once in a process.

    Parameters
    ----------
    source
        A path; an encoded image as bytes, bytearray or memoryview; a binary file, read from its
        current position to its end; a PIL image (its current frame, its EXIF orientation
        included); an array or anything with ``__array__``; or a list or tuple that mixes these.
        A path that ends in ``.pb``, or such a file's bytes, is a serialized TensorProto of ONNX:
        an array (N, C, H, W) or (N, H, W, C) of 1 or 3 channels.
        In a list each item gives the faces that it would give alone, in order, so an array of N
        faces gives N.  Lists do not nest, and an empty one gives zero faces.

        Arrays, with C channels of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha):

        - (H, W): one grey image.
        - (H, W, C): one image, whenever the last axis is 1 to 4 long; else it is
          (N, H, W): N grey images.
        - (N, 1, H, W): the model's own layout, whenever the second axis is 1 long; else it is
          (N, H, W, C): N images.

        Refused is what only looks like these: channels-first colour, (3, H, W) whose planes show
        the same edges, or (N, 3, H, W); rows of 48 x 48 or 64 x 64 pixels; encoded bytes; faces
        along the last axis.

        Real numbers of any width, byte order, strides and alignment.  A 64 x 64 grey float32
        array in 0..255 passes unchanged, bit for bit.  Nothing is written to.
    size
        Height and width of the model's input, in pixels.
    channels
        Those of the model's input: 1 for grey, 3 for RGB.  Grey sources fill all three alike.
    **options
        Those of `PreprocessOptions`: ``channel_order``, ``value_range``, ``background``,
        ``resample``.

    Returns
    -------
    numpy.ndarray
        A new C-contiguous float32 array of shape (N, channels, size, size), 0..255.

    Raises
    ------
    InputError
        If it is not an image or array as described; a file cannot be read or decoded; it has more
        pixels than ``PIL.Image.MAX_IMAGE_PIXELS``, or is more than 8 times as long as wide; it
        holds numbers outside the range, NaN or infinity; or, where no ``value_range`` is given, a
        face looks normalised (not black, and its brightest level is below 4) or like percent, or
        has 16 bits of which it uses 8 to 14.
    TypeError
        For an option that does not exist.
    ValueError
        For a value that an option does not take.
    """
    checked = CheckedOptions.of(options, size, channels)
    faces = [face for item, name in named(source) for face in _faces(item, name, checked)]
    return _stacked(faces, checked)


def preprocess_each(
    source: Source | Sequence[Source],
    *,
    size: int = 64,
    channels: int = 1,
    **options: Unpack[PreprocessOptions],
) -> list[NDArray[np.float32] | InputError]:
    """Return the faces of each item of a list, or why it cannot be used.

    Anything but a list or tuple counts as a list of one.  Of an array of several faces of which
    some cannot be used, each face counts as an item.

    Parameters
    ----------
    source, size, channels, **options
        Those of `preprocess`.

    Returns
    -------
    list
        For each item a float32 array (N, channels, size, size), or the error that `preprocess`
        raises for it.

    Raises
    ------
    TypeError
        For an option that does not exist.
    ValueError
        For a value that an option does not take.
    """
    checked = CheckedOptions.of(options, size, channels)
    found: list[NDArray[np.float32] | InputError] = []
    for item, name in named(source):
        try:
            found.append(_stacked(list(_faces(item, name, checked)), checked))
        except InputError as error:
            found += _face_by_face(item, name, checked, error)
    return found


def _face_by_face(
    item: Any, name: str, options: CheckedOptions, error: InputError
) -> list[NDArray[np.float32] | InputError]:
    """Return the faces of an array one by one; of what is none, or holds one, the error."""
    if not hasattr(item, "__array__"):
        return [error]
    try:
        images = channels_last(as_array(item, name), name)
    except InputError:
        return [error]
    if len(images) < 2:
        return [error]
    found: list[NDArray[np.float32] | InputError] = []
    for number, image in enumerate(images, 1):
        try:
            face = _faces(image, name_of_face(number, len(images), name), options)
            found.append(_stacked(list(face), options))
        except InputError as own:
            found.append(own)
    return found


def _stacked(
    faces: Sequence[NDArray[np.floating[Any]]], options: CheckedOptions
) -> NDArray[np.float32]:
    shape = (len(faces), options.channels, options.size, options.size)
    result = np.empty(shape, dtype=np.float32)
    for i, face in enumerate(faces):
        result[i] = face
    return result


def _faces(item: Any, name: str, options: CheckedOptions) -> Iterator[NDArray[np.floating[Any]]]:
    """Yield each face of one source as (channels, size, size), 0..255."""
    if hasattr(item, "__array__") and not is_encoded(item):
        yield from array_faces(as_array(item, name), options.value_range, name, options)
        return
    tensor = tensor_of(item, name)
    if tensor is not None:
        yield from array_faces(tensor, options.value_range, name, options)
        return
    from ferplus_tvm.faces.images import image_of
    from ferplus_tvm.faces.pixels import levels, upright

    image = image_of(item, name)
    if options.resample == "bilinear":
        image = upright(image)
    if image.mode in ("I", "F"):
        yield from array_faces(np.asarray(image), options.value_range, name, options)
    elif options.resample == "bilinear":
        warn_if_whole(*image.size, name)
        yield bilinear(levels(image, options, name), options.size)
    elif image.mode.startswith("I;16"):
        yield from array_faces(np.asarray(image), options.value_range, name, options)
    else:
        yield from array_faces(
            np.asarray(image), (0, 1 if image.mode == "1" else 255), name, options
        )
