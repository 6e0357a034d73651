"""The driver: a valid model of any operator set to a tidy graph, by the rules under passes/."""

from __future__ import annotations

import onnx

from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.importer.contract import check_graph, check_tidy
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import BATCH, free_interface
from ferplus_tvm.importer.passes import RULES
from ferplus_tvm.importer.scaling import insert
from ferplus_tvm.importer.structure import check_structure
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET, upgrade


def tidy(
    model: onnx.ModelProto, notes: list[str], scaling: Scaling, channels: int | None
) -> onnx.ModelProto:
    """Return the tidy graph of ``model``; contract.py says what that is.

    Parameters
    ----------
    model
        A model from `read_model`, all tensors in it; it may be changed.
    notes
        Sentences for the user about what had to be assumed or changed are appended here.
    scaling
        What is done to raw pixels before anything else; nothing where it is `RAW`.
    channels
        The number of channels that the caller states, or None.

    Raises
    ------
    ModelError
        One of its subclasses, if the model is not valid or not supported.
    """
    check_structure(model)
    batch = free_interface(model, channels)
    graph = Graph.from_model(upgrade(model), batch)
    if scaling != RAW:
        insert(graph, scaling)
    # A list, so that every rule gets its turn in every round.
    while any([rule(graph) for rule in RULES]):
        pass
    classes = check_graph(graph)
    result = graph.to_model(OPSET, IR_VERSION, (BATCH, *graph.input_shape), (BATCH, classes))
    check_tidy(result)
    return result
