"""Rule: a stored bias that is added after a layer becomes the layer's own.

1. Conv, then Add of one number per channel, of shape [C, 1, 1] or [1, C, 1, 1], or of a single
   number.
2. Gemm, then Add of [O], [1, O] or a single number.
3. A bias that the layer has already is summed with it in float64 (of a Gemm with beta=1).
4. An Add of a vector along another axis (a [W] meets the columns of a feature map, not its
   channels), of two computed values, or after a layer that is read elsewhere too, is left alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferplus_tvm.importer.graph import Graph, Node, float32
from ferplus_tvm.importer.shapes import value_shapes


def apply(graph: Graph) -> bool:
    """Apply the rule; return whether it changed the graph."""
    return any([_merge(graph, node) for node in list(graph.nodes) if node.op in ("Conv", "Gemm")])


def _merge(graph: Graph, layer: Node) -> bool:
    """Merge the Add after ``layer``; return whether there was one to merge."""
    reader = graph.only_consumer(layer.outputs[0])
    parts = graph.split(reader) if reader is not None and reader.op == "Add" else None
    shape = value_shapes(graph).get(layer.outputs[0])
    if reader is None or parts is None or shape is None or layer.attributes.get("beta", 1) != 1:
        return False
    added = _per_channel(parts[1], shape[0], rank=len(shape) + 1)
    own = _own_bias(graph, layer.inputs, shape[0])
    if added is None or own is None:
        return False
    total = float32(own.astype(np.float64) + added.astype(np.float64))
    layer.inputs[2:] = [graph.add_constant(f"{layer.name}_bias", total)]
    layer.outputs[0] = reader.outputs[0]
    graph.nodes.remove(reader)
    return True


def _per_channel(array: NDArray[Any], channels: int, rank: int) -> NDArray[Any] | None:
    """Return ``array`` as one number per channel of a value of ``rank``, None if it is not so."""
    if array.dtype != np.float32 or array.ndim > rank:
        return None
    aligned = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if aligned.size not in (1, channels) or aligned.shape[1] != aligned.size:
        return None
    return np.broadcast_to(aligned.reshape(-1), (channels,))


def _own_bias(graph: Graph, inputs: list[str], channels: int) -> NDArray[Any] | None:
    """Return the bias that a layer has, zeros if it has none, None if it is not plain."""
    if len(inputs) < 3 or not inputs[2]:
        return np.zeros(channels, np.float32)
    bias = graph.constants.get(inputs[2])
    if bias is None or bias.shape != (channels,) or bias.dtype != np.float32:
        return None
    return bias
