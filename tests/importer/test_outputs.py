"""Files with several outputs: one is chosen by name, and never guessed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, pixels
from tests.importer.support import run


def network(*extra: str) -> ModelProto:
    """Make a network with the output ``scores`` and those of ``extra``."""
    net = Net()
    x = net.add("Relu", net.conv(net.scale("faces"), 1, 4, strides=[4, 4]))
    net.dense(net.add("Flatten", net.pool(x), axis=1), 256, 8)
    net.nodes[-1].output[0] = "scores"
    made = net.model("scores")
    outputs = {
        "scores": helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 8]),
        "probabilities": helper.make_tensor_value_info(
            "probabilities", TensorProto.FLOAT, ["N", 8]
        ),
        "class": helper.make_tensor_value_info("class", TensorProto.INT64, ["N"]),
        "maps": helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 4, 16, 16]),
    }
    del made.graph.output[:]
    made.graph.output.extend(outputs[name] for name in ("scores", *extra))
    made.graph.node.extend(
        [
            helper.make_node("Softmax", ["scores"], ["probabilities"]),
            helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
            helper.make_node("Identity", [x], ["maps"]),
        ]
    )
    return made


@pytest.mark.parametrize("name", ["scores", "probabilities"])
def test_the_output_of_a_name(name: str) -> None:
    made = network("probabilities", "class", "maps")
    imported = load_model(made.SerializeToString(), output=name)
    assert imported.output_name == name
    expected = run(network(), pixels(2))
    np.testing.assert_allclose(run(imported.proto, pixels(2)), expected, rtol=1e-5, atol=1e-5)


def test_the_only_output_may_be_named() -> None:
    assert load_model(network().SerializeToString(), output="scores").output_name == "scores"


def test_scores_and_probabilities_need_a_choice() -> None:
    with pytest.raises(ModelShapeError, match=r"'scores', 'probabilities'.*--model-output NAME"):
        load_model(network("probabilities").SerializeToString())


@pytest.mark.parametrize("extra", [("class",), ("maps",), ("class", "maps")])
def test_the_only_one_that_can_be_scores_is_proposed(extra: tuple[str, ...]) -> None:
    with pytest.raises(ModelShapeError, match=r"--model-output scores.*the only one") as caught:
        load_model(network(*extra).SerializeToString())
    assert all(repr(name) in str(caught.value) for name in extra)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["score", "gemm_6_out", ""])
def test_an_output_that_is_not_there(name: str) -> None:
    with pytest.raises(ModelShapeError, match=r"no output .*choose one of 'scores', 'maps'"):
        load_model(network("maps").SerializeToString(), output=name)


def test_no_output() -> None:
    made = network()
    del made.graph.output[:]
    with pytest.raises(ModelShapeError, match=r"0 outputs \(none\)"):
        load_model(made.SerializeToString())
