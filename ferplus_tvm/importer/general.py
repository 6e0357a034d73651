"""A network with branches as a graph of general operators, all of its shapes fixed.

The rules of a tidy graph make one chain of layers; what has sums of two values, several scales or
several heads is not one.  Its graph stays as the file has it, but for what every file goes
through: functions are put in place, all is float32 and of opset 17, constants are folded and dead
nodes dropped.  `ferplus_tvm.importer.general_relax` translates it operator by operator.
"""

from __future__ import annotations

import onnx

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.dequantize import dequantize_weights
from ferplus_tvm.importer.functions import inline_functions
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.passes import fold_constants, remove_dead
from ferplus_tvm.importer.precision import to_float32
from ferplus_tvm.importer.structure import check_structure
from ferplus_tvm.importer.upgrade import upgrade


def general_graph(model: onnx.ModelProto, output: str | None = None) -> Graph:
    """Return the graph of ``model``, which has one input of a fixed shape.

    Parameters
    ----------
    model
        A model from `read_model`, all tensors in it; it is changed.
    output
        The name of the output to compute; None if the model has only one.

    Raises
    ------
    ModelError
        One of its subclasses, if the model is not valid, or its input is not one of a fixed shape.
    """
    inline_functions(model)
    check_structure(model, output)
    dequantize_weights(model.graph)
    to_float32(model, [])
    _expect_fixed(model.graph)
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    graph = Graph.from_model(upgrade(model))
    while any([fold_constants.apply(graph), remove_dead.apply(graph)]):
        pass
    return graph


def _expect_fixed(graph: onnx.GraphProto) -> None:
    dims = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    if len(graph.input) != 1 or not dims or min(dims) < 1:
        names = ", ".join(repr(value.name) for value in graph.input)
        raise ModelShapeError(
            f"the model's inputs in use are {names}, of {dims}: expected one whose dimensions are "
            "all fixed; export it so"
        )
