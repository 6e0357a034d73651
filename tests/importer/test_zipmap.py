"""Files whose scores leave through a ZipMap, as Azure Custom Vision and ML.NET write them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, pixels
from tests.importer.support import run

NAMES = ["calm", "glad", "sad", "cross", "shy"]


def zipped(*, label: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a network that ends in a softmax, and the same behind a ZipMap."""
    net = Net()
    x = net.add("Relu", net.conv(net.scale("faces"), 1, 4, strides=[2, 2]))
    scores = net.add("Softmax", net.dense(net.add("Flatten", x), 4 * 16 * 16, 5), axis=1)
    plain = net.model(scores, ("N", 1, 32, 32))
    made = net.model(scores, ("N", 1, 32, 32))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    made.graph.node.append(
        helper.make_node(
            "ZipMap", [scores], ["loss"], domain="ai.onnx.ml", classlabels_strings=NAMES
        )
    )
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    named = helper.make_map_type_proto(TensorProto.STRING, number)
    outputs = [helper.make_value_info("loss", helper.make_sequence_type_proto(named))]
    if label:
        made.graph.node.append(helper.make_node("ArgMax", [scores], ["label"], axis=1))
        outputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N", 1]))
    del made.graph.output[:]
    made.graph.output.extend(outputs)
    return plain, made


@pytest.mark.parametrize("label", [False, True])
def test_its_scores_and_names_are_the_files(label: bool) -> None:
    plain, made = zipped(label=label)
    imported = load_model(made.SerializeToString(), output="loss" if label else None)
    faces = pixels(2, 1, 32)
    scores = run(imported.proto, faces)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    found = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, run(plain, faces), rtol=0, atol=1e-6)
    assert json.loads(imported.metadata["class_labels"]) == NAMES


def test_it_is_the_output_to_choose() -> None:
    _, made = zipped(label=True)
    with pytest.raises(ModelShapeError, match="--model-output loss"):
        load_model(made.SerializeToString())
