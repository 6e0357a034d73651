"""Rule: fold BatchNormalization into the layer before it.

1. After a Conv, with or without a bias: with s = scale / sqrt(variance + epsilon), W becomes
   W * s per output channel and the bias (bias - mean) * s + shift, in float64, rounded once.
2. The same after a Gemm in its plain form.
3. A BatchNormalization in training mode, with computed parameters, after anything else, or after
   a layer that is read elsewhere too, is left alone.
"""

from __future__ import annotations

import numpy as np

from ferplus_tvm.importer.graph import Graph, Node, float32
from ferplus_tvm.importer.passes.plain_gemm import PLAIN

_EPSILON = 1e-5  # the default of the ONNX specification


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    return any([_fold(graph, node) for node in list(graph.nodes) if node.op in ("Conv", "Gemm")])


def _fold(graph: Graph, layer: Node) -> bool:
    """Fold the BatchNormalization after ``layer``; return whether there was one to fold."""
    norm = graph.only_consumer(layer.outputs[0])
    weights = graph.constants.get(layer.inputs[1])
    if norm is None or norm.op != "BatchNormalization" or weights is None:
        return False
    if norm.inputs[0] != layer.outputs[0] or norm.attributes.get("training_mode", 0):
        return False
    axis = 0 if layer.op == "Conv" else 1
    if layer.op == "Gemm" and layer.attributes != PLAIN:
        return False
    channels = weights.shape[axis]
    bias_name = layer.inputs[2] if len(layer.inputs) > 2 else ""
    bias = graph.constants.get(bias_name) if bias_name else np.zeros(channels, np.float32)
    parameters = [graph.constants.get(name) for name in norm.inputs[1:5]]
    arrays = [a.astype(np.float64) for a in (bias, *parameters)
              if a is not None and a.shape == (channels,) and a.dtype == np.float32]  # fmt: skip
    if len(arrays) != 5:
        return False
    own, scale, shift, mean, variance = arrays
    with np.errstate(all="ignore"):  # a negative variance is found by the check for NaN
        factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", _EPSILON))
        new_bias = (own - mean) * factor + shift
        per_channel = factor.reshape((-1,) + (1,) * (weights.ndim - 1 - axis))
        new_weights = weights.astype(np.float64) * per_channel
    layer.inputs[1:] = [
        graph.add_constant(f"{layer.name}_weight", float32(new_weights)),
        graph.add_constant(f"{layer.name}_bias", float32(new_bias)),
    ]
    layer.outputs[0] = norm.outputs[0]
    graph.nodes.remove(norm)
    return True
