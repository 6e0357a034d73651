"""Fetch a model of the zoo by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ferplus_tvm.zoo.fetch import fetch, fetch_test_data
from ferplus_tvm.zoo.registry import lookup


def fetch_model(
    name: str,
    *,
    with_test_data: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make sure that a model of the zoo is on this machine, and return its path.

    Parameters
    ----------
    name
        A name that ``ferplus-tvm models list`` shows, such as ``"emotion-ferplus-8"``.
    with_test_data
        Fetch the zoo's test data too: inputs and the scores that they should get, which `compile`
        then runs by itself and `verify` takes.  They lie in a folder beside the model's file, of
        its name without ``.onnx``.
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
        If it can be had from nowhere, or cannot be stored, or has no test data.
    MissingExtraError
        If the packages of the extra ``cli`` are not installed.
    """
    model = lookup(name)
    if with_test_data:
        fetch_test_data(model, progress=progress)
    return fetch(model, progress=progress)
