"""The known model files, where they lie on this machine, and whether they are intact.

The sizes and hashes of the official files are those of the Git LFS pointers in the ONNX Model
Zoo (github.com/onnx/models, ``validated/vision/body_analysis/emotion_ferplus/model``).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ferplus_tvm.errors import DownloadError, MissingExtraError, ModelFileError

CACHE_VARIABLE = "FERPLUS_TVM_CACHE"
"""Environment variable that names the cache folder, in place of the user's usual one."""

_FOLDER = "validated/vision/body_analysis/emotion_ferplus/model"
# The zoo's official mirror first: GitHub has answered with Git LFS pointers since July 2025.
_ADDRESSES = (
    f"https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{_FOLDER}/",
    f"https://github.com/onnx/models/raw/main/{_FOLDER}/",
)


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One known model file.

    Attributes
    ----------
    name
        The name that `lookup` and `resolve` take.
    file_name
        The name of the file in the cache folder or, for the bundled model, in the package.
    size
        The size of the file in bytes.
    sha256
        The hash of the whole file, as 64 lower-case hexadecimal digits.
    opset
        The version of ONNX's default operator set that the model uses.
    addresses
        The URLs to download from, in the order to try them; empty for the bundled model.
    description
        What the model is, in one line.
    terms
        Licence and origin, in one line.
    """

    name: str
    file_name: str
    size: int
    sha256: str
    opset: int
    addresses: tuple[str, ...]
    description: str
    terms: str


def _official(name: str, size: int, sha256: str, opset: int, description: str) -> ZooModel:
    file_name = f"{name}.onnx"
    addresses = tuple(folder + file_name for folder in _ADDRESSES)
    return ZooModel(name, file_name, size, sha256, opset, addresses, description, "MIT")


BUNDLED = ZooModel(
    name="bundled",
    file_name="ferplus-bundled.onnx",
    size=17525870,
    sha256="6e1fdd5c1a43f29751937a607e19b31768bea4c5405cfafee9e82153ae82b189",
    opset=8,
    addresses=(),
    description="trained for this project, shipped with it; weights stored as fp16",
    terms="FER+ votes MIT, FER2013 images for research (see zoo/data/MODEL_CARD.md)",
)
"""The model that needs no download."""

MODELS: tuple[ZooModel, ...] = (
    BUNDLED,
    _official(
        "emotion-ferplus-8",
        35040571,
        "a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c",
        8,
        "official model, float32",
    ),
    _official(
        "emotion-ferplus-7",
        35040571,
        "f800ecfe8a41e6ebf675f5830146e1d0c5c491cd2292a3ef3494c901963d3e52",
        7,
        "official model, float32",
    ),
    _official(
        "emotion-ferplus-2",
        35041945,
        "16f87fbec2f6b5cc1d84f90a16e9874493eb06a685104386cc79cc5ef1c46e75",
        2,
        "official model, float32, operators of 2017",
    ),
    _official(
        "emotion-ferplus-12-int8",
        19300656,
        "3e47195d79e9593294df9e81a6d296a1e10969b68a717284081c29493a0ff5f1",
        12,
        "official model, partly quantized to int8",
    ),
)
"""Every model of the zoo; the first is the bundled one, the others are downloaded."""

_BY_NAME = {model.name: model for model in MODELS}


def lookup(name: str) -> ZooModel:
    """Return the zoo's entry of exactly this name.

    Parameters
    ----------
    name
        The name of one of `MODELS`.

    Raises
    ------
    ModelFileError
        If there is no such model; the message lists the names.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ModelFileError(
            f"the zoo has no model {name!r}: choose one of {', '.join(_BY_NAME)}"
        ) from None


def cache_dir() -> Path:
    """Return the folder of downloaded models, which need not exist yet.

    It is ``models`` in the folder that the environment variable ``FERPLUS_TVM_CACHE`` names,
    or else in the user's cache folder (``~/.cache/ferplus_tvm`` on Linux).

    Raises
    ------
    MissingExtraError
        If the variable is not set and platformdirs is not installed.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute() / "models"
    try:
        import platformdirs
    except ImportError as error:
        raise MissingExtraError.of("finding downloaded models", "cli") from error
    return Path(platformdirs.user_cache_dir("ferplus_tvm", appauthor=False)) / "models"


def local_path(model: ZooModel) -> Path:
    """Return where the file lies on this machine, or will lie once it has been fetched."""
    if model.addresses:
        return cache_dir() / model.file_name
    # A wheel is installed unzipped, so that the resource is a real file.
    return Path(str(importlib.resources.files("ferplus_tvm.zoo"))) / "data" / model.file_name


def is_intact(model: ZooModel, path: Path) -> bool:
    """Return whether ``path`` is a file with the size and the sha256 of a model.

    The whole file is read, but only if its size is right.

    Parameters
    ----------
    model
        The model that the file should be.
    path
        The file, which need not exist.

    Raises
    ------
    OSError
        If the file exists but cannot be read.
    """
    try:
        if path.stat().st_size != model.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256
    except FileNotFoundError:
        return False


def verify(model: ZooModel) -> Path:
    """Check the size and the sha256 of a zoo model's local file, and return its path.

    This says that the file is the promised one.  `ferplus_tvm.verify` says that a compiled library
    computes what it should.

    Parameters
    ----------
    model
        An entry of the registry, as `lookup` returns it.

    Raises
    ------
    ModelFileError
        If the model has not been fetched.
    DownloadError
        If the local file is not the promised one, or cannot be read.
    """
    path = local_path(model)
    if model.addresses:
        remedy = f"run `ferplus-tvm models fetch {model.name}`"
    else:
        remedy = "reinstall ferplus_tvm"
    try:
        if is_intact(model, path):
            return path
        present = path.exists()
    except OSError as error:
        raise DownloadError(
            f"model {model.name!r} cannot be read ({error}): make the file readable or {remedy}"
        ) from error
    if not present:
        raise ModelFileError(
            f"model {model.name!r} is not on this machine (expected {path}): {remedy}"
        )
    raise DownloadError(
        f"{path} is not the model {model.name!r} of {model.size} bytes "
        f"with sha256 {model.sha256}: {remedy}"
    )


def resolve(model: str | os.PathLike[str]) -> Path:
    """Return the path of a model that is given by its name in the zoo or by its path.

    The file of a zoo model is hashed each time, because it may have been placed by hand.  Other
    files are not read.

    Parameters
    ----------
    model
        A string that is exactly a name of the zoo means the zoo's model, even where a file of that
        name lies in the current folder; ``./bundled`` or a `pathlib.Path` means the file.
        Everything else is a path.

    Raises
    ------
    ModelFileError
        If a zoo model has not been fetched, or there is no readable file at the path.
    DownloadError
        If the local file of a zoo model is not the promised one.
    """
    if isinstance(model, str) and model in _BY_NAME:
        return verify(_BY_NAME[model])
    path = Path(model)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelFileError(f"there is no model file {str(path)!r}{_suggestion(path)}") from None
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"the model file {str(path)!r} cannot be read ({error}): check the path"
        ) from error
    if is_folder:
        raise ModelFileError(f"{str(path)!r} is a folder: give the .onnx file itself")
    return path


def _suggestion(path: Path) -> str:
    """Return the end of a message: what a path that does not exist may have been meant to be."""
    stem = path.name.lower().removesuffix(".onnx")
    close = difflib.get_close_matches(stem, _BY_NAME, n=1)
    if close:
        return f": check the path, or give the zoo's name {close[0]!r}"
    return f": check the path, or give a name of the zoo ({', '.join(_BY_NAME)})"
