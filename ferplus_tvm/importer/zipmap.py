"""ZipMap, with which ML.NET, Azure Custom Vision and skl2onnx name the scores of classes."""

from __future__ import annotations

import json

import onnx
from onnx import TensorProto, helper

_DOMAIN = "ai.onnx.ml"
_KEY = "class_labels"


def replace_zipmap(model: onnx.ModelProto) -> None:
    """Let each output that a ZipMap makes be the scores that it names, in place.

    The names become an entry ``class_labels`` of the model's metadata, where hints are read.
    """
    outputs = {value.name: value for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type != "ZipMap" or node.domain != _DOMAIN or not node.input or not node.output:
            continue
        names = [each.decode("utf-8", "replace") for a in node.attribute for each in a.strings]
        if names and _KEY not in {entry.key for entry in model.metadata_props}:
            model.metadata_props.add(key=_KEY, value=json.dumps(names))
        name = node.output[0]
        if name in outputs:
            scores = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            outputs[name].CopyFrom(scores)
        node.CopyFrom(helper.make_node("Identity", [node.input[0]], [name], node.name))
