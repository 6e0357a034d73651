"""Where the known model files lie on this machine, and whether they are intact."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import stat
from pathlib import Path

from ferplus_tvm.errors import (
    DownloadError,
    MissingExtraError,
    ModelFileError,
    UnsupportedModelError,
)
from ferplus_tvm.zoo.models import MODELS, ZooFile, ZooModel
from ferplus_tvm.zoo.names import NEWEST, nearest

CACHE_VARIABLE = "FERPLUS_TVM_CACHE"
"""Environment variable that names the cache folder, in place of the user's usual one."""

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
        If there is no such model; the message lists the names, and says which may be meant.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ModelFileError(
            f"the zoo has no model {name!r}, only {', '.join(_BY_NAME)}: "
            f"{nearest(name) or 'choose one of these'}"
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


def local_path(file: ZooFile) -> Path:
    """Return where the file lies on this machine, or will lie once it has been fetched."""
    if file.addresses:
        return cache_dir() / file.file_name
    # A wheel is installed unzipped, so that the resource is a real file.
    return Path(str(importlib.resources.files("ferplus_tvm.zoo"))) / "data" / file.file_name


def notice_of(model: ZooModel) -> str:
    """Return the licence and the holders of a bundled model, a text of several paragraphs."""
    return local_path(model).with_name(model.notice).read_text("utf-8")


def test_data_path(model: ZooModel) -> Path:
    """Return the folder of the model's test data, which is there once they have been fetched.

    It lies beside the model, and has its name.
    """
    return local_path(model).with_suffix("")


def is_intact(promised: ZooFile, path: Path) -> bool:
    """Return whether ``path`` is a file with the size and the sha256 that are promised.

    The whole file is read, but only if its size is right.

    Parameters
    ----------
    promised
        What the file should be.
    path
        The file, which need not exist.

    Raises
    ------
    OSError
        If the file exists but cannot be read.
    """
    try:
        if path.stat().st_size != promised.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == promised.sha256
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
    """Return the path of a model to compile that is given by its name in the zoo or by its path.

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
    UnsupportedModelError
        If it is a zoo model that cannot be compiled, fetched or not, or the face detector, which
        is compiled into another's library.
    DownloadError
        If the local file of a zoo model is not the promised one.
    """
    if isinstance(model, str) and model in _BY_NAME:
        known = _BY_NAME[model]
        if known.detector:
            raise UnsupportedModelError(
                f"the zoo's model {model!r} finds faces and gives no emotions: compile one that "
                f"does, such as {NEWEST!r}, and have the detector in the library with --detector "
                "(in Python detector=True)"
            )
        if known.unsupported:
            raise UnsupportedModelError(
                f"the zoo's model {model!r} cannot be compiled yet, because of its "
                f"{known.unsupported}: give {NEWEST!r}, the same network in float32"
            )
        return verify(known)
    path = Path(model)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        instead = nearest(str(path)) or f"give a name of the zoo ({', '.join(_BY_NAME)})"
        raise ModelFileError(
            f"there is no model file {str(path)!r}: check the path, or {instead}"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"the model file {str(path)!r} cannot be read ({error}): check the path"
        ) from error
    if is_folder:
        raise ModelFileError(f"{str(path)!r} is a folder: give the .onnx file itself")
    return path
