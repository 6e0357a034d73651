"""The importer: an ONNX file, as any tool exports it, to one tidy graph.

1. `read_model` parses a path or bytes, external data included.
2. `check_structure`, `free_interface` and `upgrade` make it one valid graph of opset 17.
3. The rules under ``passes/`` rewrite it; ``contract.py`` says what a tidy graph is and checks it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import onnx

from ferplus_tvm.importer.read import read_model
from ferplus_tvm.importer.structure import opset_of
from ferplus_tvm.importer.tidy import tidy

__all__ = ["ImportedModel", "load_model"]


@dataclass(frozen=True)
class ImportedModel:
    """A model ready to be compiled.

    Attributes
    ----------
    proto
        The tidy graph (opset 17); `ferplus_tvm.importer.contract` says what it may hold.
    sha256
        Of the model file's bytes, followed by the bytes of each external tensor in file order;
        without external data this is what ``sha256sum`` says.
    name
        The file name without its suffix; for bytes the graph's name.
    input_name, output_name
        The names of the input and the output in the file.
    opset
        The operator set of the file.
    """

    proto: onnx.ModelProto
    sha256: str
    name: str
    input_name: str
    output_name: str
    opset: int


def load_model(source: str | os.PathLike[str] | bytes) -> ImportedModel:
    """Read an ONNX model of the FER+ network, or of one like it, and make it tidy.

    Parameters
    ----------
    source
        The path of a ``.onnx`` file, or its bytes.  External data is read from the folder of
        the file, so such a model needs the path.

    Returns
    -------
    ImportedModel
        With a tidy graph that takes float32 (N, 1, 64, 64), whatever batch the file fixed, and
        gives float32 (N, 8).  The value range of the input is the file's own: raw 0..255 grey
        for FER+, which scales its input itself.

    Raises
    ------
    ModelFileError
        If there is no whole ONNX model in ``source``.
    ModelShapeError
        If it does not take one grey 64x64 face per row and give eight scores.
    UnsupportedModelError
        If it holds something that no rule handles.
    TypeError
        If ``source`` is neither a path nor bytes.
    """
    file = read_model(source)
    opset = opset_of(file.proto)
    proto = tidy(file.proto)
    graph = proto.graph
    return ImportedModel(
        proto, file.sha256, file.name, graph.input[0].name, graph.output[0].name, opset
    )
