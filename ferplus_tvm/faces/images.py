"""Open and decode one image, whatever its format.

Everything that Pillow can raise while it opens or decodes an image leaves as an
:class:`~ferplus_tvm.errors.InputError` that names the source.
"""

from __future__ import annotations

import inspect
import io
import os
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ferplus_tvm.errors import InputError, one_line
from ferplus_tvm.faces.diagnose import of_content, of_missing_path, of_object
from ferplus_tvm.faces.formats import format_of
from ferplus_tvm.faces.shapes import check_aspect
from ferplus_tvm.faces.sources import Encoded, is_encoded

# Drawings, not pixels: Pillow would start Ghostscript (EPS) or the Windows GDI (WMF, EMF) on
# bytes that may come from strangers.
_DRAWINGS = frozenset({"EPS", "WMF"})

# What is read of a file to say what it is, if it is no image: more than the pixels of a face.
_ENOUGH = 200_000

_COLOURS = {"RGB": 3, "RGBA": 3, "LA": 1}

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and one of its values

_LONGEST_PATH = 255  # in bytes, of one name on most file systems


def image_of(item: Any, name: str, *, whole: bool = False) -> Image.Image:
    """Decode a Pillow image, a file or an encoded image, as it is stored.

    Parameters
    ----------
    item
        A Pillow image, or what `read_image` takes.
    name, whole
        Those of `read_image`.

    Raises
    ------
    InputError
        It is none of these, or not a whole image of an acceptable size.
    """
    if isinstance(item, Image.Image):
        image = decoded(item, name, whole=whole)
    elif is_encoded(item):
        image = read_image(item, name, whole=whole)
    else:
        raise InputError(f"{name} {of_object(item)}")
    if image.mode == "I" and image.format == "PPM":
        image = Image.fromarray(np.asarray(image).astype(np.uint16))  # as Pillow scales them
    return image


def read_image(source: Encoded, name: str, *, whole: bool = False) -> Image.Image:
    """Open and decode a file or an encoded image; of several frames, the first.

    Parameters
    ----------
    source
        Path of a file, the file's bytes, or a binary file, read from its current position.
    name
        What messages call the source.
    whole
        Whether it is a whole photo, which may be of any shape; else it shows one face.

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
            stream.seek(0)
            content = stream.read(_ENOUGH)
            if format_of(content[:64]) == "HEIC":
                return _heic(stream, name, whole)
            raise InputError(f"{name} {of_content(content)}") from error
        except Exception as error:
            raise _undecodable(name, error) from error
        return decoded(image, name, whole=whole)


def decoded(image: Image.Image, name: str, *, whole: bool = False) -> Image.Image:
    """Decode an image that Pillow has opened, unless this has been done already.

    With ``whole`` it may be of any shape.

    Raises
    ------
    InputError
        A damaged or truncated file, an image without pixels or far too long, a vector drawing,
        colours of 16 bits that hold fewer, or more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``,
        Pillow's limit against decompression bombs. Pillow itself only warns up to twice this limit.
    """
    if image.format in _DRAWINGS:
        raise InputError(
            f"{name} is a vector drawing ({image.format}); expected pixels: save it as PNG"
        )
    _check_size(image.size, name, whole)
    # Pillow keeps the upper 8 bits of colours of 16 bits, and forgets that it did when it loads.
    cut = image.mode in _COLOURS and any(
        ";16" in str(tile[3]) or str(tile[3]).endswith(", 65535)")  # the latter in PPM
        for tile in getattr(image, "tile", ())
    )
    try:
        image.load()
    except Exception as error:
        # Pillow's decoders answer damaged bytes with OSError, SyntaxError, struct.error,
        # IndexError and more; there is no common base to name.
        raise _undecodable(name, error) from error
    _check_size(image.size, name, whole)  # icons say their true size only now
    if cut:
        extremes: Any = image.getextrema()
        if max(high for _, high in extremes[: _COLOURS[image.mode]]) < 64:
            raise InputError(
                f"{name} has colours of 16 bits that use 14 or fewer, of which Pillow keeps hardly "
                "any; expected white to be 65535: save it with 8 bits, or pass it as an array of "
                "uint16"
            )
    # Pillow turns these levels round in 8 bits only.
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode.startswith(("I", "F")):
        raise InputError(
            f"{name} is a TIFF file whose white is 0 (WhiteIsZero), of more than 8 bits; expected "
            "black to be 0: save it so, or with 8 bits"
        )
    return image


def _heic(stream: BinaryIO, name: str, whole: bool) -> Image.Image:
    """Read the primary picture of a HEIC file by pillow-heif, as it is seen.

    libheif turns it as the file's own properties say; pillow-heif then takes off the orientation
    that EXIF repeats, which is void in HEIC.  Pillow's list of formats, which belongs to the app,
    stays as it is.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            f"{name} is a HEIC picture, which Pillow does not read by itself: "
            "pip install 'ferplus_tvm[heif]', or convert it to JPEG first"
        ) from error
    try:
        file = pillow_heif.open_heif(stream)
        _check_size(file.size, name, whole)
        image: Image.Image = file.to_pillow()
    except InputError:
        raise
    except Exception as error:  # of many classes, as Pillow's
        raise _undecodable(name, error) from error
    return image


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
        if isinstance(source, str) and len(source) > _LONGEST_PATH:
            raise InputError(f"{name} {of_missing_path(source)}") from error
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(
            f"{name} cannot be read ({reason}); expected a readable image file: "
            "check the path and its permissions"
        ) from error
    if size == 0:
        stream.close()
        read = callable(getattr(source, "read", None))
        again = ", or seek(0) before handing over a file that was read before" if read else ""
        raise InputError(
            f"{name} is empty (0 bytes); expected an encoded image: check how it was written{again}"
        )
    return stream


def _opened_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a file so that one can seek in it."""
    if os.path.isdir(path):
        raise InputError(f"{name} is a folder; expected an image file: name the files inside it")
    try:
        stream = open(path, "rb")  # noqa: SIM115 - read_image closes it
    except FileNotFoundError as error:
        raise InputError(f"{name} {of_missing_path(os.fsdecode(path))}") from error
    if stream.seekable():
        return stream
    with stream:  # a pipe
        return io.BytesIO(stream.read())


def _content(source: Any, name: str) -> bytes:
    """Give the bytes of an encoded image, or of a binary file from where it stands."""
    if isinstance(source, memoryview) and source.ndim > 1:
        raise InputError(
            f"{name} is a memoryview of the shape {source.shape}, so it looks like pixels; "
            "expected an encoded image: pass numpy.asarray of it"
        )
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        content = source.read()
    except Exception as error:  # any class of the caller's may stand behind read()
        raise InputError(
            f"{name} is a file that cannot be read ({one_line(error)}); expected one that is "
            "open for reading: open it with 'rb'"
        ) from error
    if inspect.iscoroutine(content):
        content.close()
        raise InputError(
            f"{name} is a file whose read() has to be awaited; expected bytes: pass what "
            "await read() gives"
        )
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InputError(
            f"{name} is a file whose read() gives {type(content).__name__}; expected bytes: "
            "open it with 'rb'"
        )
    return bytes(content)


def _check_size(size: tuple[int, int], name: str, whole: bool) -> None:
    """Refuse an image without pixels, beyond Pillow's limit, or too long to be what it is to be.

    The limit is compared here, since turning Pillow's warning into an error would change the
    warning filters of all threads.
    """
    width, height = size
    pixels = width * height
    if pixels == 0:
        raise InputError(
            f"{name} has {width} x {height} pixels; expected at least 1 x 1: check how it was "
            "cropped"
        )
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{width} x {height} = {pixels} pixels")
    if not whole:
        check_aspect(width, height, name)


def _too_large(name: str, got: str) -> InputError:
    return InputError(
        f"{name} is too large ({got}); expected at most {Image.MAX_IMAGE_PIXELS} pixels "
        "(PIL.Image.MAX_IMAGE_PIXELS): crop it or shrink it first"
    )


def _undecodable(name: str, error: Exception) -> InputError:
    """Say why Pillow gave up."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_large(name, one_line(error))
    if isinstance(error, AssertionError | AttributeError) or "closed" in str(error):
        return InputError(
            f"{name} cannot be decoded ({one_line(error)}), as after close() or verify(); expected "
            "an open image: open it again, or call its load() before it is closed"
        )
    return InputError(
        f"{name} cannot be decoded ({one_line(error)}); expected a whole image: "
        "it may be truncated or damaged, so fetch or save it again"
    )
