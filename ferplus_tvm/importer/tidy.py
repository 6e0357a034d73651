"""The driver: a valid model of any operator set to a tidy graph, by the rules under passes/."""

from __future__ import annotations

import onnx

from ferplus_tvm.importer.choose import choose_and_read
from ferplus_tvm.importer.contract import check_graph, check_tidy
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import BATCH, free_interface
from ferplus_tvm.importer.passes import CHAIN_RULES, GRAPH_RULES
from ferplus_tvm.importer.structure import check_structure
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET, upgrade
from ferplus_tvm.importer.writer import write_graph


def tidy(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """Return the tidy graph of ``model``; contract.py says what that is.

    Parameters
    ----------
    model
        A model from `read_model`, all tensors in it; it may be changed.
    notes
        Sentences for the user about what had to be assumed or changed are appended here.

    Raises
    ------
    ModelError
        One of its subclasses, if the model is not valid or not supported.
    """
    check_structure(model)
    interface = free_interface(model)
    graph = Graph.from_model(upgrade(model), interface.batch)
    # A list, so that every rule gets its turn in every round.
    while any([rule(graph) for rule in GRAPH_RULES]):
        pass
    chain = choose_and_read(graph, interface, notes)
    while any([rule(chain) for rule in CHAIN_RULES]):
        pass
    made = write_graph(chain, graph)
    classes = check_graph(made)
    result = made.to_model(OPSET, IR_VERSION, (BATCH, *made.input_shape), (BATCH, classes))
    check_tidy(result)
    return result
