"""Fetch a model of the zoo by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ferplus_tvm.zoo.fetch import fetch
from ferplus_tvm.zoo.registry import lookup


def fetch_model(name: str, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make sure that a model of the zoo is on this machine, and return its path.

    Parameters
    ----------
    name
        A name that ``ferplus-tvm models list`` shows, such as ``"emotion-ferplus-8"``.
    progress
        Called with the bytes that are here and the bytes of the whole file.

    Returns
    -------
    pathlib.Path
        The ONNX file, whose size and sha256 have been checked.

    Raises
    ------
    ModelFileError
        If there is no model of this name.
    DownloadError
        If it can be had from nowhere, or cannot be stored.
    MissingExtraError
        If the packages of the extra ``cli`` are not installed.
    """
    return fetch(lookup(name), progress=progress)
