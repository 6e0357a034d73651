"""The importer: an ONNX file, as any tool exports it, to one tidy graph.

1. `read_model` parses a path or bytes, external data included.
2. `replace_zipmap`, `inline_functions`, `check_structure`, `dequantize_weights`, `to_float32`,
   `free_interface` and `upgrade` make it one valid graph of opset 17 in float32.
3. The rules under ``passes/`` rewrite it; ``contract.py`` says what a tidy graph is and checks it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.importer.read import read_model
from ferplus_tvm.importer.structure import opset_of
from ferplus_tvm.importer.tidy import tidy
from ferplus_tvm.importer.zipmap import replace_zipmap

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
    notes
        Sentences to be said once to the user: what was changed in a way that matters.
    warnings
        Sentences about what was assumed of the input.
    metadata
        The file's own ``metadata_props``, by key, and ``class_labels`` of a ZipMap.
    """

    proto: onnx.ModelProto
    sha256: str
    name: str
    input_name: str
    output_name: str
    opset: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    metadata: Mapping[str, str]

    @property
    def channels(self) -> int:
        """1 for grey faces, 3 for RGB."""
        return int(self.proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value)

    @property
    def size(self) -> int:
        """Height and width of a face in pixels."""
        return int(self.proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value)

    @property
    def classes(self) -> int:
        """The number of scores for each face."""
        return int(self.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def load_model(
    source: str | os.PathLike[str] | bytes,
    *,
    output: str | None = None,
    scaling: Scaling = RAW,
    channels: int | None = None,
) -> ImportedModel:
    """Read an ONNX model of the FER+ network, or of one like it, and make it tidy.

    Parameters
    ----------
    source
        The path of a ``.onnx`` file, or its bytes.  External data is read from the folder of
        the file, so such a model needs the path.
    output
        The name of the output that holds the scores; needed only if the file has several.
    scaling
        How the file wants its pixels; the tidy graph does that itself, and takes raw ones.
    channels
        1 or 3, for a file that leaves the number of channels open; it has to be that of others.

    Returns
    -------
    ImportedModel
        With a tidy graph that takes float32 (N, C, S, S), whatever batch and layout the file
        fixed, and gives float32 (N, K).  Without ``scaling`` the value range of the input is the
        file's own: raw 0..255 grey for FER+, which scales its input itself.

    Raises
    ------
    ModelFileError
        If there is no whole ONNX model in ``source``.
    ModelShapeError
        If it does not take one square face of 1 or 3 channels and 32 to 224 pixels per row, and
        give 2 to 64 scores; or if it has several outputs and none, or an unknown one, is named.
    UnsupportedModelError
        If it holds something that no rule handles.
    TypeError
        If ``source`` is neither a path nor bytes.
    """
    file = read_model(source)
    opset = opset_of(file.proto)
    replace_zipmap(file.proto)
    # protobuf hands text that is not UTF-8 out as bytes; no hint can be read from such an entry.
    entries = [(each.key, each.value) for each in file.proto.metadata_props]
    metadata = {k: v for k, v in entries if isinstance(k, str) and isinstance(v, str)}
    notes: list[str] = []
    warnings: list[str] = []
    proto = tidy(file.proto, notes, warnings, output=output, scaling=scaling, channels=channels)
    graph = proto.graph
    return ImportedModel(
        proto,
        file.sha256,
        file.name,
        graph.input[0].name,
        graph.output[0].name,
        opset,
        tuple(notes),
        tuple(warnings),
        metadata,
    )
