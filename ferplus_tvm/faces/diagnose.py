"""What was given in place of a picture, and what to do: the ends of sentences in errors."""

from __future__ import annotations

import inspect
import math
import numbers
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ferplus_tvm.faces.formats import format_of, text_format_of

_PICTURE = "expected an encoded picture, such as PNG, JPEG or WebP"
_SOURCES = "expected a path, an encoded image (bytes or a binary file), a PIL image or an array"

_STEPS = {
    "JPEG XL": "convert it to PNG or JPEG first, for example with djxl",
    "AVIF": "install Pillow 11.3 or later, which reads it, or convert it first",
    "PDF": "it is a document: save the page, or the picture in it, as PNG first",
    "SVG": "it is a drawing without pixels: save it as PNG first",
    "HTML": "it is a web page, perhaps an error that a server sent: look at its text",
    "XML or HTML": "look at its text: a server may have sent an error in place of the picture",
    "JSON": "take the picture out of it, or look at its text: a server may have sent an error",
    "MP4 video": "take a frame out of it first, for example with OpenCV",
    "AVI video": "take a frame out of it first, for example with OpenCV",
    "WebM or Matroska video": "take a frame out of it first, for example with OpenCV",
    "ZIP": "unpack it first",
    "gzip": "unpack it first",
    "7-Zip": "unpack it first",
    "RAR": "unpack it first",
    "NPY": "pass the array that numpy.load reads from it, or save that as PNG",
    "AppleDouble": "it holds what macOS keeps beside a picture: take the file without ._",
    "Git LFS pointer": "run git lfs pull to fetch the picture itself",
    "a data URI": "decode what follows the comma first, as base64.b64decode does",
    "an address": "download it first, and pass the file or its bytes",
    "numbers as text": (
        "read them first, as numpy.array(text.split(), numpy.uint8) does, and pass the array in "
        "the picture's shape, or save that as PNG"
    ),
    "the text of Python bytes": "pass the bytes themselves",
    "base64 text": "decode it first, as base64.b64decode does",
    "URL-safe base64 text": "decode it first, as base64.urlsafe_b64decode does",
    "hexadecimal text": "decode it first, as bytes.fromhex does",
    "the text of a list": "pass the list itself",
}

# Objects of other libraries, by the names of their types.
_OBJECTS = {
    "UMat": "pass what its get() gives",
    "GpuMat": "pass what its download() gives",
    "QImage": "save it to bytes as PNG first, by a QBuffer",
    "QPixmap": "save it to bytes as PNG first, by a QBuffer",
    "Figure": "save it to an io.BytesIO first, by its savefig",
    "UploadFile": "pass what await read() gives",
}

_CHANGED = (
    b"\xef\xbf\xbd",
    b"\xc2\x89PNG",
    b"\xc3\xbf\xc3\x98",
    b"\x89PNG\n\x1a",
    b"\x89PNG\r\r\n",
)

# By its form: whether a file exists is nothing to tell a stranger who sends bytes.
_PATH = re.compile(rb"[^\0\r\n]{1,1000}\.(png|jpe?g|webp|bmp|gif|tiff?|heic|avif)", re.IGNORECASE)
_TEXT = re.compile(rb"[\t\r\n -~]{4,}")


def of_content(content: bytes) -> str:
    """Return the end of a sentence that says what bytes are that Pillow does not know.

    Parameters
    ----------
    content
        All of them, or more of the beginning than the pixels of a face take.
    """
    head = content[:1000]
    name = format_of(head) or text_format_of(content)
    if name in _STEPS:
        return f"is {name}; {_PICTURE}: {_STEPS[name]}"
    if name is not None:
        return (
            f"begins as {name}, but is damaged, or of a kind that Pillow does not read; expected a "
            "picture of 8 or 16 bits: save it anew, for example as PNG"
        )
    if head.startswith(_CHANGED):
        return f"was read or sent as text, which changed its bytes; {_PICTURE}: open it with 'rb'"
    if head.startswith(b"--") and b"content-disposition:" in head.lower():
        return f"is the body of a form; {_PICTURE}: pass the part that holds the file"
    if _PATH.fullmatch(content):
        return f"looks like a path, in bytes; {_PICTURE}: pass it as text, by os.fsdecode"
    for channels, shape in ((1, "{0}, {0}"), (3, "{0}, {0}, 3")):
        side = math.isqrt(len(content) // channels)
        if channels * side * side == len(content) and 32 <= side <= 224:
            return (
                f"is in no known format, but as long as the pixels of a {side} x {side} face; "
                f"{_PICTURE}, or an array: pass numpy.frombuffer(data, numpy.uint8).reshape("
                f"{shape.format(side)}), or save that as PNG"
            )
    if _TEXT.fullmatch(head):
        start = head[:40].decode("ascii")
        return f"is text, which begins with {start!r}; {_PICTURE}: check where it comes from"
    return (
        "is not in a known image format, or its beginning is damaged; expected PNG, JPEG, WebP, "
        "BMP, GIF, TIFF or another format that Pillow reads: convert it first"
    )


def of_missing_path(path: str) -> str:
    """Return the end of a sentence that says what text is that names no file."""
    if not path:
        return "is empty text; expected the path of an image: check where it comes from"
    if path.strip(" \t\r\n\"'") != path and os.path.exists(path.strip(" \t\r\n\"'")):
        return "has spaces, quotes or a line break around it; expected a path: strip it"
    if path.lower().startswith("file:/"):
        coded = ", and decode its %20 and the like" if "%" in path else ""
        return f"is a file's address; expected a path: take file:// off{coded}"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        return f"is an address; expected the path of an image: {_STEPS['an address']}"
    if path.startswith("~"):
        return (
            "does not exist: ~ stands for a folder in shells only, and outside quotes, so write "
            "the folder, as os.path.expanduser does"
        )
    if re.search(r"\$\w|\$\{|%\w+%", path):
        return (
            "does not exist: variables are expanded in shells only, so write their values, as "
            "os.path.expandvars does"
        )
    kind = text_format_of(path.encode("utf-8", "surrogateescape"))
    if kind is not None:
        return f"is {kind}; expected the path of an image: {_STEPS[kind]}"
    if re.search(r"[*?]|\[.+\]", path):
        return (
            "does not exist; * and ? are not expanded here: use glob.glob, or leave quotes out in "
            "a shell"
        )
    return "does not exist; expected an image file: check the path"


def of_object(item: Any) -> str:
    """Return the end of a sentence that says what an object is that is no source of a face."""
    kind = type(item).__name__
    if item is None:
        return (
            f"is None, which cv2.imread gives for a file that it cannot read; {_SOURCES}: check "
            "the path"
        )
    if inspect.isawaitable(item):
        return f"is of type {kind}, and was not awaited; {_SOURCES}: await it first"
    if isinstance(item, bool):
        return (
            f"is {item}, such as cv2.VideoCapture.read gives beside the frame; {_SOURCES}: pass "
            "the frame alone"
        )
    if kind in _OBJECTS:
        return f"is of type {kind}; {_SOURCES}: {_OBJECTS[kind]}"
    if isinstance(item, list | tuple):
        return (
            f"is a {kind} within a list; {_SOURCES}, since lists do not nest: join them, or if "
            "these are pixels, pass numpy.asarray of them"
        )
    if isinstance(item, numbers.Number):
        return f"is a number ({item}); {_SOURCES}: pass pixels in a list as numpy.asarray of them"
    if isinstance(item, dict):
        keys = ", ".join(repr(key) for key in list(item)[:3])
        return f"is a dictionary of {keys or 'nothing'}; {_SOURCES}: pass the value that is one"
    if callable(item):
        return f"is of type {kind}, not what it returns; {_SOURCES}: call it"
    if hasattr(item, "__array_interface__") or _shows_memory(item):
        return (
            f"is of type {kind}; {_SOURCES}: pass numpy.asarray of it if it holds pixels, and "
            "bytes of it if it holds an encoded picture"
        )
    if hasattr(item, "__dlpack__"):
        return f"is of type {kind}; {_SOURCES}: pass numpy.from_dlpack of it"
    if isinstance(item, Iterable):
        return f"is of type {kind}; {_SOURCES}: make it a list, by list(...)"
    if hasattr(item, "content") and hasattr(item, "status_code"):
        return f"is the answer of a server ({kind}); {_SOURCES}: pass its .content"
    return f"is of type {kind}; {_SOURCES}: convert it first"


def of_array_type(dtype: np.dtype[Any], first: Any) -> str:
    """Return the end of a sentence that says what an array holds that are not real numbers."""
    real = "expected real numbers, for example uint8"
    if isinstance(first, str) and text_format_of(first.encode()) == "numbers as text":
        return (
            f"holds pixels as text, as FER2013's CSV does; {real}: pass a list of "
            "numpy.array(text.split(), numpy.uint8).reshape(48, 48), one for each text"
        )
    if isinstance(first, str | bytes):
        return (
            f"holds {'text' if isinstance(first, str) else 'bytes'} (type {dtype}); {real}: pass "
            "paths and encoded pictures as array.tolist()"
        )
    if dtype.kind == "O" and isinstance(first, numbers.Number):
        return f"holds Python's numbers; {real}: pass array.astype(numpy.uint8) if they fit"
    if dtype.names:
        return (
            f"has the fields {', '.join(dtype.names)}; {real}: pass "
            "numpy.lib.recfunctions.structured_to_unstructured of it"
        )
    if dtype.kind == "O":
        return (
            f"holds Python objects (the first is of type {type(first).__name__}); {real}: pass "
            "pictures as list(array)"
        )
    return f"has the type {dtype}; {real}: convert it first"


def _shows_memory(item: Any) -> bool:
    """Whether an object shows its memory, as array.array and the arrays of ctypes do."""
    try:
        memoryview(item)
    except Exception:
        return False
    return True
