"""A model's own acceptance test: inputs and the outputs that they should get, as ONNX's zoo has it.

::

    emotion_ferplus/
        model.onnx
        test_data_set_0/
            input_0.pb    what the model's file is given, in its own range of values
            output_0.pb   what it gave, by the framework that it came from
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.onnx_tensor import read_tensor_file

TOLERANCE = 1e-3
"""The largest difference of a score that is allowed, relative to the largest score of its set.

ONNX's own test runner allows as much: the outputs come from another framework's float32.
"""
_HALF_TOLERANCE = 1e-2  # of outputs that were computed in float16, whose numbers have 11 bits

_SUM_TOLERANCE = 1e-3  # of probabilities, which float16 rounds
_DARKEST, _BRIGHTEST = -0.5, 255.5  # pixels, with what float16 rounds
_DIM = 2.0  # some level of any face is above this


@dataclass(frozen=True)
class DataSet:
    """One test data set, as a library takes it.

    Attributes
    ----------
    name
        The name of its folder, such as ``test_data_set_0``.
    pixels
        float32 (N, C, S, S), what the file's own values are by the library's scaling.
    outputs
        float64 (N, K), what the model's file gave.
    tolerance
        The largest difference allowed, relative to the largest output.
    """

    name: str
    pixels: NDArray[np.float32]
    outputs: NDArray[np.float64]
    tolerance: float


@dataclass(frozen=True)
class SetResult:
    """How far a library is off a test data set.

    Attributes
    ----------
    name
        The name of the set's folder.
    error
        The largest difference from an output at any batch size, relative to the largest output.
    tolerance
        The largest difference allowed: 1e-3, as in ONNX's own test runner, or what the library's
        precision allows if that is more; 1e-2 if the outputs were computed in float16.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Contract:
    """What a library takes and gives.

    Attributes
    ----------
    face
        (C, S, S).
    classes
        The number of scores for each face.
    scaling
        What the model's file wants of raw pixels.
    tolerance
        The largest difference that the library's precision allows.
    """

    face: tuple[int, int, int]
    classes: int
    scaling: Scaling
    tolerance: float

    @classmethod
    def of(cls, manifest: Manifest) -> Contract:
        """Return what a library's manifest says."""
        return cls(
            manifest.face_shape, len(manifest.labels), manifest.scaling, manifest.check.tolerance
        )


def in_folder(folder: Path, contract: Contract) -> list[DataSet]:
    """Read the test data sets in ``folder``, or the one that it is.

    Raises
    ------
    InputError
        If there are none, or one of them cannot be read or is of another shape.
    """
    sets = _find(folder)
    if not sets:
        expected = "expected a folder with test_data_set_0, or one with input_0.pb and output_0.pb"
        if folder.is_dir():
            raise InputError(f"there are no test data in {folder}: {expected}")
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"there are no test data, since {folder} {what}: {expected}")
    return [_read(each, contract) for each in sets]


def beside(model: Path, contract: Contract) -> tuple[list[DataSet], list[str]]:
    """Read the test data sets that belong to a model's file.

    They lie in a folder of the model's name, as `ferplus_tvm.fetch_model` puts them, or beside the
    model if it is the only one in its folder, as in the zoo's archives.

    Returns
    -------
    tuple
        The sets, and a sentence about each that cannot be used.
    """
    folders = _find(model.with_suffix("")) if model.suffix else []
    if not folders:
        folders = _find(model.parent)
        if folders and any(other.name != model.name for other in model.parent.glob("*.onnx")):
            return [], [
                f"the test data in {model.parent} were not run, since there are several models: "
                "if they are this one's, run 'ferplus-tvm verify' with --test-data"
            ]
    sets, unusable = [], []
    for each in folders:
        try:
            sets.append(_read(each, contract))
        except InputError as problem:
            unusable.append(f"test data were not run: {problem}")
    return sets, unusable


def unlike_pixels(sets: Sequence[DataSet]) -> list[str]:
    """Return a sentence if inputs, by the library's scaling, are no pixels 0..255."""
    for each in sets:
        low, high = float(each.pixels.min()), float(each.pixels.max())
        if low < _DARKEST or high > _BRIGHTEST or high <= _DIM:
            return [
                f"the input of {each.name} is of pixels in {low:.3g}..{high:.3g} by the scaling "
                "that the library has, and not in 0..255: if it was made from a face, state the "
                "model's own scaling by input_range=, mean= and std= (--input-range, --mean, --std)"
            ]
    return []


def error_of(scores: NDArray[np.float32], outputs: NDArray[np.float64]) -> float:
    """Return how far a library's scores are off a set's outputs, relative to the largest output.

    The outputs of a model that ends in a softmax or its logarithm are probabilities.  A library
    leaves the softmax to the runtime; so its scores are compared after one.

    Parameters
    ----------
    scores
        The library's scores (N, K).
    outputs
        What the model's file gave for the same inputs (N, K).
    """
    given: NDArray[np.floating[Any]] = scores
    if _sums_to_one(outputs):
        given = np.exp(_log_softmax(scores))
    elif _sums_to_one(np.exp(np.minimum(outputs, 1))):
        given = _log_softmax(scores)
    return reference_inputs.relative_error(given, outputs)


def _find(folder: Path) -> list[Path]:
    """Return the folders of test data sets in order of their numbers; none where there are none."""
    try:
        if (folder / "input_0.pb").is_file():
            return [folder]
        found = [path for path in folder.glob("test_data_set_*") if path.is_dir()]
    except OSError:  # of a folder that cannot be read
        return []
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _read(folder: Path, contract: Contract) -> DataSet:
    """Read a test data set.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, or is of another shape.
    """
    name = folder.resolve().name
    inputs, outputs = _tensors(folder, "input"), _tensors(folder, "output")
    if len(inputs) != 1:
        raise InputError(f"{name} has {len(inputs)} inputs: expected one, input_0.pb")
    (input_name, given), *_ = inputs.items()
    values = _faces(given, contract.face, input_name)
    expected = (len(values), contract.classes)
    fitting = [each for each in outputs.values() if _is_of_shape(each, expected)]
    if len(fitting) != 1:
        shapes = ", ".join(f"{key} {each.shape}" for key, each in outputs.items()) or "none"
        raise InputError(
            f"the outputs of {name} are {shapes}: expected one of shape {expected}, the scores of "
            "its faces; see that the test data are of this model"
        )
    scores = fitting[0].astype(np.float64).reshape(expected)
    if not (np.isfinite(values).all() and np.isfinite(scores).all()):
        raise InputError(f"{name} holds NaN or infinity: expected finite numbers")
    tolerance = max(TOLERANCE, contract.tolerance)
    with np.errstate(over="ignore"):  # of numbers that float16 does not have
        if np.array_equal(scores, scores.astype(np.float16)):
            tolerance = max(tolerance, _HALF_TOLERANCE)
    return DataSet(name, contract.scaling.pixels(values), scores, tolerance)


def _tensors(folder: Path, kind: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of a set by what messages call them, in order of their numbers."""
    try:
        paths = [path for path in folder.iterdir() if re.fullmatch(rf"{kind}_\d+\.pb", path.name)]
    except OSError as error:
        raise InputError(
            f"the test data {folder} cannot be read ({error.strerror}): check its permissions"
        ) from error
    found = {}
    for path in sorted(paths, key=lambda path: (len(path.name), path.name)):
        name = f"{folder.resolve().name}/{path.name}"
        found[name] = read_tensor_file(path, name)
    return found


def _faces(given: NDArray[Any], face: tuple[int, int, int], name: str) -> NDArray[np.float64]:
    """Return the input as (N, C, S, S), of whatever layout that cannot be meant otherwise."""
    channels, size, _ = face
    rest = given.shape[1:]
    values = given.astype(np.float64)
    if rest == (size, size, channels) and len(values):
        return values.transpose(0, 3, 1, 2)
    flat = [(size, size), (size * size,)] if channels == 1 else []
    if rest in [face, *flat] and len(values):
        return values.reshape(-1, *face)
    raise InputError(
        f"{name} has the shape {given.shape}: expected (N, {', '.join(map(str, face))}), since the "
        "library takes such faces; see that the test data are of this model"
    )


def _is_of_shape(given: NDArray[Any], expected: tuple[int, int]) -> bool:
    """Tell whether an output is of a shape, with or without further axes of length 1."""
    wide = [size for size in given.shape[1:] if size != 1]
    return given.shape[:1] == expected[:1] and wide == [expected[1]]


def _sums_to_one(rows: NDArray[np.float64]) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=_SUM_TOLERANCE))


def _log_softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
