"""The face detector YuNet as a graph that takes a picture and gives one array.

Its file takes float32 (1, 3, H, W) in BGR, and has twelve outputs: for each of three grids two
probabilities, a box and five points.  The graph made of it takes the picture as it is in memory,
uint8 (1, H, W, 3) in RGB, and gives float32 (1, A, 16): the twelve outputs side by side for each
place, one grid after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.general import general_graph
from ferplus_tvm.importer.graph import Graph, Node
from ferplus_tvm.importer.read import read_model

STRIDES = (8, 16, 32)
"""The size of a cell of each grid in pixels; the height and width of a picture are multiples."""

HEADS = ("cls", "obj", "bbox", "kps")
"""The outputs of each grid: probabilities of a face and of an object, box, points."""

_OUTPUT = "ferplus_tvm.values"
_PICTURE = "ferplus_tvm.picture"


@dataclass(frozen=True)
class ImportedDetector:
    """A detector ready to be compiled.

    Attributes
    ----------
    proto
        The model as its file has it.
    sha256
        Of the file's bytes.
    name
        The file name without its suffix.
    """

    proto: onnx.ModelProto
    sha256: str
    name: str

    def sized(self, height: int, width: int) -> onnx.ModelProto:
        """Return the file's model for pictures of another size, a multiple of the largest stride.

        The file's own operators leave that open; only its declarations do not.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        graph = model.graph
        declared = helper.make_tensor_value_info(
            graph.input[0].name, TensorProto.FLOAT, (1, 3, height, width)
        )
        graph.input[0].CopyFrom(declared)
        del graph.value_info[:]
        for output in graph.output:
            output.type.tensor_type.shape.dim[1].Clear()
        return model

    def graph(self, height: int, width: int) -> Graph:
        """Return the graph for pictures of a size, as the module's docstring says.

        Raises
        ------
        ModelError
            One of its subclasses, if it is not the network that it is taken for.
        """
        model = self.sized(height, width)
        _join_outputs(model.graph)
        graph = general_graph(model, _OUTPUT)
        _take_pictures(graph)
        return graph


def load_detector(path: Path) -> ImportedDetector:
    """Read the file of a detector.

    Raises
    ------
    ModelError
        One of its subclasses, if it is no whole model, or has other outputs.
    """
    file = read_model(path)
    wanted = {f"{head}_{stride}" for head in HEADS for stride in STRIDES}
    found = {value.name for value in file.proto.graph.output}
    if found != wanted:
        raise ModelShapeError(
            f"the detector {file.name} has the outputs {', '.join(sorted(found))}: expected those "
            f"of YuNet, {', '.join(sorted(wanted))}"
        )
    return ImportedDetector(file.proto, file.sha256, file.name)


def _join_outputs(graph: onnx.GraphProto) -> None:
    """Put the twelve outputs together, in place."""
    grids = []
    for stride in STRIDES:
        grids.append(f"{_OUTPUT}_{stride}")
        heads = [f"{head}_{stride}" for head in HEADS]
        graph.node.append(helper.make_node("Concat", heads, [grids[-1]], grids[-1], axis=2))
    graph.node.append(helper.make_node("Concat", grids, [_OUTPUT], _OUTPUT, axis=1))
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, [1, None, None]))


def _take_pictures(graph: Graph) -> None:
    """Have a graph take uint8 RGB, channels last, in place."""
    for node in graph.consumers(graph.input):
        if node.op != "Conv":
            raise ModelShapeError(
                f"{node} is the detector's first operator: expected a Conv, as YuNet has it"
            )
        weight = graph.constants[node.inputs[1]]
        node.inputs[1] = graph.add_constant(
            f"{node.inputs[1]}.rgb", np.ascontiguousarray(weight[:, ::-1])
        )
    channels, height, width = graph.input_shape
    as_float = graph.free_value_name("float")
    graph.nodes[:0] = [
        Node("Cast", "to_float", [_PICTURE], [as_float], {"to": TensorProto.FLOAT}),
        Node("Transpose", "channels_first", [as_float], [graph.input], {"perm": [0, 3, 1, 2]}),
    ]
    graph.input = _PICTURE
    graph.input_shape = (height, width, channels)
