"""Tensors that an ONNX model keeps in files beside it, read within bounds."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from onnx import TensorProto

from ferplus_tvm.errors import ModelFileError
from ferplus_tvm.importer.tensors import claimed_bytes, tensors_of, type_name


def load_external(proto: onnx.ModelProto, folder: Path | None, limit: int, digest: Any) -> None:
    """Read the external data of ``proto`` into it.

    Parameters
    ----------
    proto
        The model, changed in place.
    folder
        The folder of the model file; None if the model came as bytes.
    limit
        The number of bytes that may be read in all.
    digest
        A hashlib object, updated with the bytes of each external tensor in file order.

    Raises
    ------
    ModelFileError
        If the data is missing, too short, outside the folder, or more than ``limit``; or if the
        model came as bytes.
    """
    for tensor in tensors_of(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ModelFileError(
                f"the model keeps tensor {tensor.name!r} in a file beside it, so its bytes alone "
                "are not enough: pass the path of the .onnx file"
            )
        data = _read(tensor, folder, limit)
        limit -= len(data)
        digest.update(data)
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _read(tensor: TensorProto, folder: Path, limit: int) -> bytes:
    """Return the bytes of one external tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if any(not isinstance(value, str) for value in entries.values()):
        raise ModelFileError(
            f"tensor {tensor.name!r} is kept in a file whose name is not UTF-8 text: the model is "
            "damaged, so fetch or export it again"
        )
    path = _locate(tensor.name, entries.get("location", ""), folder)
    size = claimed_bytes(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", size if size is not None else -1))
    except ValueError as error:
        raise ModelFileError(
            f"tensor {tensor.name!r} has an offset or length for {path.name!r} that is not a "
            "number: the model file is damaged, so fetch or export it again"
        ) from error
    if size is None or length != size or offset < 0:
        raise ModelFileError(
            f"tensor {tensor.name!r} with dimensions {list(tensor.dims)} of {type_name(tensor)} "
            f"does not fit the {length} bytes at offset {offset} of {path.name!r} that it names: "
            "fetch or export the model again"
        )
    try:
        held = path.stat().st_size
        if not path.is_file() or offset + size > held or size > limit:
            raise ModelFileError(
                f"tensor {tensor.name!r} needs {size} bytes at offset {offset} of {path.name!r}, "
                f"which holds {held}: put the whole data file beside the model"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise ModelFileError(
            f"tensor {tensor.name!r} is kept in {path.name!r}, which cannot be read "
            f"({error.strerror or error}): put that file beside the model"
        ) from error
    if len(data) != size:
        raise ModelFileError(
            f"{path.name!r} changed while tensor {tensor.name!r} was read from it: try again"
        )
    return data


def _locate(name: str, location: str, folder: Path) -> Path:
    """Return the path of a data file, which has to lie in the model's folder, links followed."""
    # The rules of both systems hold everywhere, so that a model is accepted or not by its
    # bytes and not by the machine.
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    relative = not (windows.drive or windows.root or posix.root or "\0" in location)
    if location and relative and ".." not in windows.parts:
        path = folder.joinpath(*windows.parts)
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            return path
    raise ModelFileError(
        f"tensor {name!r} is kept in {location!r}, and only files in the model's own folder are "
        "read: put the data file beside the model and export it with a relative location"
    )
