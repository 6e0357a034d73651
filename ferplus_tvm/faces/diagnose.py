"""What was given in place of a picture, and what to do: the ends of sentences in errors."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Iterator
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
    "NPY": "read it with numpy.load and pass the array",
    "AppleDouble": "it holds what macOS keeps beside a picture: take the file without ._",
    "Git LFS pointer": "run git lfs pull to fetch the picture itself",
    "a data URI": "pass base64.b64decode of what follows the comma",
    "an address": "download it first and pass the bytes",
    "numbers as text": "read the pixels with numpy first and pass the array",
    "the text of Python bytes": "pass the bytes themselves",
    "base64 text": "pass base64.b64decode of it",
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
                f"{shape.format(side)})"
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
    if path.startswith("file:/"):
        return "is a file's address; expected a path: take file:// off"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        return "is an address; expected the path of an image: download it first and pass the bytes"
    if path.startswith("~"):
        return "does not exist: ~ stands for a folder in shells only, so use os.path.expanduser"
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
    if isinstance(item, list | tuple):
        return (
            f"is a {kind} within a list; {_SOURCES}, since lists do not nest: join them, or if "
            "these are pixels, pass numpy.asarray of them"
        )
    if isinstance(item, int | float):
        return f"is a number ({item!r}); {_SOURCES}: pass pixels in a list as numpy.asarray of them"
    if isinstance(item, dict):
        keys = ", ".join(repr(key) for key in list(item)[:3])
        return f"is a dictionary of {keys or 'nothing'}; {_SOURCES}: pass the value that is one"
    if isinstance(item, set | frozenset | Iterator):
        return f"is of type {kind}; {_SOURCES}: make it a list, by list(...)"
    if hasattr(item, "content") and hasattr(item, "status_code"):
        return f"is the answer of a server ({kind}); {_SOURCES}: pass its .content"
    if callable(item):
        return f"is of type {kind}, not what it returns; {_SOURCES}: call it"
    return f"is of type {kind}; {_SOURCES}: convert it first"


def of_array_type(dtype: np.dtype[Any], first: Any) -> str:
    """Return the end of a sentence that says what an array holds that are not real numbers."""
    if isinstance(first, str | bytes):
        return (
            f"holds text (type {dtype}); expected real numbers, for example uint8: pass paths "
            "as array.tolist(), or read pixels from the text first"
        )
    if dtype.kind == "O":
        return (
            f"holds Python objects (the first is of type {type(first).__name__}); expected real "
            "numbers, for example uint8: pass pictures as list(array)"
        )
    return f"has the type {dtype}; expected real numbers, for example uint8: convert it first"
