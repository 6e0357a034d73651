"""The driver: a valid model of any operator set to a tidy graph.

The file's graph is made one of float32 and of opset 17, and what is constant in it is computed.
The reader makes a chain of steps of it, the rules under passes/ fold them into layers, and the
writer makes the tidy graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.importer.choose import choose_and_read
from ferplus_tvm.importer.contract import check_graph, check_tidy
from ferplus_tvm.importer.dequantize import dequantize_weights
from ferplus_tvm.importer.functions import inline_functions
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import BATCH, free_interface
from ferplus_tvm.importer.passes import CHAIN_RULES, GRAPH_RULES, own_layers
from ferplus_tvm.importer.precision import to_float32
from ferplus_tvm.importer.scaling import scaling_step
from ferplus_tvm.importer.structure import check_structure
from ferplus_tvm.importer.upgrade import IR_VERSION, OPSET, upgrade
from ferplus_tvm.importer.writer import write_graph


def tidy(
    model: onnx.ModelProto,
    notes: list[str],
    warnings: list[str],
    *,
    output: str | None = None,
    scaling: Scaling = RAW,
    channels: int | None = None,
) -> onnx.ModelProto:
    """Return the tidy graph of ``model``; contract.py says what that is.

    Parameters
    ----------
    model
        A model from `read_model`, all tensors in it; it may be changed.
    notes
        Sentences for the user about what was changed are appended here.
    warnings
        Sentences about what was assumed.
    output
        The name of the output that holds the scores; None if the model has only one.
    scaling
        What is done to raw pixels before anything else; nothing where it is `RAW`.
    channels
        The number of channels that the caller states, or None.

    Raises
    ------
    ModelError
        One of its subclasses, if the model is not valid or not supported.
    """
    inline_functions(model)
    check_structure(model, output)
    dequantize_weights(model.graph)
    to_float32(model, notes)
    interface = free_interface(model, channels)
    graph = Graph.from_model(upgrade(model), interface.batch)
    # A list, so that every rule gets its turn in every round.
    while any([rule(graph) for rule in GRAPH_RULES]):
        pass
    chain = choose_and_read(graph, interface, notes, warnings)
    if scaling != RAW:
        chain.steps.insert(0, scaling_step(scaling, chain.input_shape))
    with np.errstate(all="ignore"):  # what overflows is found by the check for infinities
        while any([rule(chain) for rule in CHAIN_RULES]) or own_layers.apply(chain):
            pass
    made = write_graph(chain, graph)
    classes = check_graph(made)
    result = made.to_model(OPSET, IR_VERSION, (BATCH, *made.input_shape), (BATCH, classes))
    check_tidy(result)
    return result
