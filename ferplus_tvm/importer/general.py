"""A network with branches as a graph of general operators, all of its shapes fixed.

The rules of a tidy graph make one chain of layers; what has sums of two values, several scales or
several heads is not one.  Its graph stays as the file has it, but for what every file goes
through: functions are put in place, all is float32 and of opset 17, constants are folded and dead
nodes dropped.  `ferplus_tvm.importer.general_relax` translates it operator by operator.
"""

from __future__ import annotations

import math

import onnx

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer.dequantize import dequantize_weights
from ferplus_tvm.importer.functions import inline_functions
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.passes import fold_constants, remove_dead
from ferplus_tvm.importer.precision import to_float32
from ferplus_tvm.importer.structure import check_structure
from ferplus_tvm.importer.upgrade import upgrade

_MOST_VALUES = 1 << 26  # of an input: more than those of a picture of 4096 x 4096


def general_graph(model: onnx.ModelProto, output: str | None = None) -> Graph:
    """Return the graph of ``model``, which has one input of a fixed shape and batch 1.

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
    shapes = [
        tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in graph.input
    ]
    fixed = len(shapes) == 1 and shapes[0][:1] == (1,) and min(shapes[0]) > 0
    if not fixed or math.prod(shapes[0]) > _MOST_VALUES:
        names = ", ".join(repr(value.name) for value in graph.input) or "none"
        raise ModelShapeError(
            f"the model's inputs in use are {names}, of {shapes}: expected one whose dimensions "
            f"are all fixed, the batch to 1, and of at most {_MOST_VALUES} values; export it so"
        )
