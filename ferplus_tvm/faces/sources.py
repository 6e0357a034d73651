"""What a face can be read from, and what messages call it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

from numpy.typing import NDArray

# Pillow is imported where an image needs it: an app with arrays of its own starts 10 ms sooner.
if TYPE_CHECKING:
    from PIL import Image


class SupportsArray(Protocol):
    """Whatever numpy can read as an array: ndarray, a CPU tensor of PyTorch, a JAX array."""

    def __array__(self) -> NDArray[Any]: ...


Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"
    " | NDArray[Any] | SupportsArray"
)
"""A path, an encoded image, a binary file, a PIL image, or an array of one or more faces."""

Encoded: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""An image file's path, its bytes, or a binary file."""

_FILES = (str, os.PathLike, bytes, bytearray, memoryview)


def is_encoded(item: object) -> bool:
    """Whether an item is a path, an encoded image or a binary file."""
    return isinstance(item, _FILES) or callable(getattr(item, "read", None))


def named(source: Any) -> list[tuple[Any, str]]:
    """Return every source with what messages call it."""
    if not isinstance(source, list | tuple):
        return [(source, name_of(source))]
    count = len(source)
    return [(item, name_of(item, f"item {i} of {count}")) for i, item in enumerate(source, 1)]


def name_of(item: object, position: str = "") -> str:
    """Give what messages call the source: its path, or else its position in the list."""
    if isinstance(item, str | os.PathLike):
        path = str(os.fsdecode(item))  # numpy's text would name its type
        # An image in base64 is a common mistake for a path: do not print all of it.
        return repr(path if len(path) <= 200 else f"{path[:100]}...{path[-50:]}")
    if position:
        return position
    return "the array" if hasattr(item, "__array__") else "the image"


def name_of_face(number: int, count: int, name: str) -> str:
    """Give what messages call one face of an array."""
    return f"face {number} of {count} of {name}"
