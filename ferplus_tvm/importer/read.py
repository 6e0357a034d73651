"""A path or bytes to a parsed ONNX model with all of its tensors' bytes, or a clear error."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ferplus_tvm.errors import ModelFileError
from ferplus_tvm.importer.external import load_external
from ferplus_tvm.importer.sniff import recognise, recognise_suffix
from ferplus_tvm.importer.sniff_protobuf import recognise_protobuf
from ferplus_tvm.importer.tensors import check_size, tensors_of

# FER+ has 35 MB of weights (70 MB in double precision); protobuf itself ends at 2 GiB.
MAX_BYTES = 1 << 30
_RETRY = "fetch or export the model again"


@dataclass(frozen=True)
class ModelFile:
    """A parsed model.

    Attributes
    ----------
    proto
        The model as the file has it, external data read in, sizes of all tensors checked.
    sha256
        Of the file's bytes, followed by the bytes of each external tensor in file order.
    name
        The file name without its suffix; for bytes the graph's name.
    """

    proto: onnx.ModelProto
    sha256: str
    name: str


def read_model(source: str | os.PathLike[str] | bytes) -> ModelFile:
    """Read and parse an ONNX model.

    Parameters
    ----------
    source
        The path of a ``.onnx`` file, or the bytes of one.

    Raises
    ------
    ModelFileError
        If it cannot be read, is something else, is cut short, or claims data that it lacks.
    TypeError
        If ``source`` is neither a path nor bytes.
    """
    path: Path | None = None
    if isinstance(source, bytes):
        data, what = source, "the model given as bytes"
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        data, what = _read_bytes(path), str(path)
    else:
        raise TypeError(f"the model must be a path or bytes, not {type(source).__name__}")
    if advice := recognise(data):
        raise ModelFileError(f"{what} {advice}")
    proto = _parse(data, what, path.suffix if path else "")
    digest = hashlib.sha256(data)
    load_external(proto, path.parent if path else None, MAX_BYTES, digest)
    for tensor in tensors_of(proto):
        check_size(tensor)
    name = path.stem if path else proto.graph.name
    return ModelFile(proto, digest.hexdigest(), name if isinstance(name, str) and name else "model")


def _read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file of bounded size."""
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} {_folder_kind(path)}")
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path} is not a regular file: pass the path of a .onnx file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelFileError(
            f"there is no file {path}: check the path, or get a model with "
            "`ferplus-tvm models fetch emotion-ferplus-8`"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path} cannot be read ({reason}): check its permissions") from error
    if len(data) > MAX_BYTES:
        raise ModelFileError(
            f"{path} is larger than {MAX_BYTES >> 20} MiB, and the FER+ model has 35 MB: "
            "check that it is the right file"
        )
    return data


def _folder_kind(path: Path) -> str:
    """Return what a folder is that was taken for a model, and what to do next."""
    if (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists():
        return (
            "is a TensorFlow SavedModel, not an ONNX model: convert it with "
            f"`python -m tf2onnx.convert --saved-model {path} --output model.onnx`"
        )
    if path.suffix.lower() in (".mlpackage", ".mlmodelc"):
        return "is a CoreML model, not an ONNX model: pass the ONNX model that it was made from"
    found = sorted(each.name for each in path.glob("*.onnx"))
    example = f", such as {found[0]!r}" if found else ""
    return f"is a folder: pass the path of the .onnx file in it{example}"


def _parse(data: bytes, what: str, suffix: str) -> onnx.ModelProto:
    """Parse ``data``, and tell a damaged model from something that never was one."""
    proto = onnx.ModelProto()
    damage: DecodeError | None = None
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        damage = error
    if damage or not proto.graph.node:
        advice = recognise_protobuf(data) or recognise_suffix(suffix)
        if advice:
            raise ModelFileError(f"{what} {advice}") from damage
    if damage:
        # A model starts with field 1, the IR version, as a small number.
        if data[0] == 0x08:
            raise ModelFileError(
                f"{what} starts like an ONNX model but breaks off or is damaged "
                f"({len(data)} bytes): {_RETRY}"
            ) from damage
        raise ModelFileError(
            f"{what} is not an ONNX model: pass a .onnx file, such as the one that "
            "`ferplus-tvm models fetch emotion-ferplus-8` gets"
        ) from damage
    # protobuf reads much that is not a model as one with unknown or missing fields.
    if not proto.graph.node:
        raise ModelFileError(
            f"{what} is not an ONNX model, or one without a single operator "
            f"({len(data)} bytes): {_RETRY}"
        )
    if not proto.opset_import:
        raise ModelFileError(
            f"{what} does not say its operator set, so it is probably cut short "
            f"({len(data)} bytes): {_RETRY}"
        )
    return proto
