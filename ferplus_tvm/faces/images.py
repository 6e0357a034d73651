"""Decode one image and turn it into grey or RGB levels, whatever its format and pixel mode.

Everything that Pillow can raise while it opens or decodes an image leaves as an
:class:`~ferplus_tvm.errors.InputError` that names the source.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.sources import Encoded

# Drawings, not pixels: Pillow would start Ghostscript (EPS) or the Windows GDI (WMF, EMF) on
# bytes that may come from strangers.
_DRAWINGS = frozenset({"EPS", "WMF"})

# EXIF 2.32, tag 0x0112: what has to be done to the stored rows and columns to see the image.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: Encoded, name: str) -> Image.Image:
    """Open and decode a file or an encoded image; of several frames, the first.

    Parameters
    ----------
    source
        Path of a file, the file's bytes, or a binary file, read from its current position.
    name
        What messages call the source.

    Returns
    -------
    PIL.Image.Image
        The decoded image, as stored: neither turned upright nor converted.

    Raises
    ------
    InputError
        The file cannot be read, or is not a whole image of an acceptable size.
    """
    with _opened(source, name) as stream:
        try:
            image = Image.open(stream)
        except UnidentifiedImageError as error:
            raise InputError(
                f"{name} is not in a known image format, or its beginning is damaged; "
                "expected PNG, JPEG, WebP, BMP, GIF, TIFF or another format that Pillow reads: "
                "convert it first"
            ) from error
        except Exception as error:
            raise _undecodable(name, error) from error
        return decoded(image, name)


def decoded(image: Image.Image, name: str) -> Image.Image:
    """Decode an image that Pillow has opened, unless this has been done already.

    Raises
    ------
    InputError
        A damaged or truncated file, an image without pixels, a vector drawing, or more pixels
        than ``PIL.Image.MAX_IMAGE_PIXELS``, Pillow's limit against decompression bombs. Pillow
        itself only warns up to twice this limit.
    """
    if image.format in _DRAWINGS:
        raise InputError(
            f"{name} is a vector drawing ({image.format}); expected pixels: save it as PNG"
        )
    _check_size(image, name)
    try:
        image.load()
    except Exception as error:
        # Pillow's decoders answer damaged bytes with OSError, SyntaxError, struct.error,
        # IndexError and more; there is no common base to name.
        raise _undecodable(name, error) from error
    _check_size(image, name)  # icons say their true size only now
    return image


def upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image as its EXIF orientation says; the argument is left as it is.

    A damaged EXIF block counts as none, as in image viewers.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parsers of EXIF and XMP share no base class of errors either
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def levels(image: Image.Image, channels: int, background: float, name: str) -> NDArray[np.float32]:
    """Convert a decoded image of any mode but I and F to grey or RGB levels.

    For grey, colours become luma by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), without rounding to
    whole levels. 16-bit levels are divided by 257. Alpha, a transparent palette entry or a
    transparent colour is composited over ``background``.

    Parameters
    ----------
    image
        A decoded image, H x W.
    channels
        1 for grey, 3 for RGB.
    background
        Grey level behind transparent pixels, 0..255.
    name
        What messages call the source.

    Returns
    -------
    numpy.ndarray
        float32, (channels, H, W), 0..255.

    Raises
    ------
    InputError
        Pillow cannot convert this mode.
    """
    try:
        planes, opacity = _planes_and_opacity(image, channels)
    except Exception as error:
        raise InputError(
            f"{name} is an image of mode {image.mode}, which Pillow cannot convert "
            f"({one_line(error)}); expected for example RGB or L: convert it first"
        ) from error
    if opacity is not None:
        planes = opacity * planes + (1 - opacity) * np.float32(background)
    return np.broadcast_to(planes, (channels, *planes.shape[1:]))


def _planes_and_opacity(
    image: Image.Image, channels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Levels 0..255, (1, H, W) of grey or (3, H, W), and opacity 0..1 where there is any."""
    if image.mode.startswith("I;16"):
        stored = np.asarray(image)
        clear = image.info.get("transparency")  # PNG: the one level that is transparent
        opacity = (stored != clear).astype(np.float32) if isinstance(clear, int) else None
        return stored[np.newaxis].astype(np.float32) / np.float32(257), opacity
    opacity = None
    if image.mode == "La":  # the one mode that Pillow cannot convert to RGBA in one step
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"), dtype=np.float32) / np.float32(255)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
        if channels == 3:
            return np.moveaxis(np.asarray(image, np.float32), -1, 0), opacity
    return np.asarray(image.convert("F"))[np.newaxis], opacity


def _opened(source: Encoded, name: str) -> BinaryIO:
    """Open the source for reading from its beginning; refuse an empty one."""
    try:
        if isinstance(source, str | os.PathLike):
            stream = _opened_path(source, name)
        else:
            stream = io.BytesIO(_content(source, name))
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(
            f"{name} cannot be read ({reason}); expected a readable image file: "
            "check the path and its permissions"
        ) from error
    if size == 0:
        stream.close()
        raise InputError(
            f"{name} is empty (0 bytes); expected an encoded image: check how it was written, "
            "or seek(0) before handing over a file that was read before"
        )
    return stream


def _opened_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a file so that one can seek in it."""
    if os.path.isdir(path):
        raise InputError(f"{name} is a folder; expected an image file: name the files inside it")
    try:
        stream = open(path, "rb")  # noqa: SIM115 - read_image closes it
    except FileNotFoundError as error:
        raise InputError(
            f"{name} does not exist; expected an image file: check the path"
        ) from error
    if stream.seekable():
        return stream
    with stream:  # a pipe
        return io.BytesIO(stream.read())


def _content(source: Any, name: str) -> bytes:
    """Give the bytes of an encoded image, or of a binary file from where it stands."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        content = source.read()
    except Exception as error:  # any class of the caller's may stand behind read()
        raise InputError(
            f"{name} is a file that cannot be read ({one_line(error)}); expected one that is "
            "open for reading: open it with 'rb'"
        ) from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InputError(
            f"{name} is a file whose read() gives {type(content).__name__}; expected bytes: "
            "open it with 'rb'"
        )
    return bytes(content)


def _check_size(image: Image.Image, name: str) -> None:
    """Refuse an image without pixels, or beyond Pillow's limit.

    The limit is compared here, since turning Pillow's warning into an error would change the
    warning filters of all threads.
    """
    pixels = image.width * image.height
    if pixels == 0:
        raise InputError(
            f"{name} has {image.width} x {image.height} pixels; expected at least 1 x 1: "
            "check how it was cropped"
        )
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height} = {pixels} pixels")


def _too_large(name: str, got: str) -> InputError:
    return InputError(
        f"{name} is too large ({got}); expected at most {Image.MAX_IMAGE_PIXELS} pixels "
        "(PIL.Image.MAX_IMAGE_PIXELS): crop it to the face first"
    )


def _undecodable(name: str, error: Exception) -> InputError:
    """Say why Pillow gave up."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large(name, one_line(error))
    return InputError(
        f"{name} cannot be decoded ({one_line(error)}); expected a whole image: "
        "it may be truncated or damaged, so fetch or save it again"
    )
