"""Files that onnxruntime saved after optimising them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper

from ferplus_tvm.errors import ModelError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported, pixels
from tests.importer.support import run

MICROSOFT = helper.make_opsetid("com.microsoft", 1)


def network(
    activation: str = "Relu", inputs: tuple[float, ...] = (), pad: int = 0, **attributes: Any
) -> ModelProto:
    net = Net()
    x = net.conv(net.scale("faces"), 1, 16, strides=[4, 4])
    x = net.add(activation, x, *(net.store(number) for number in inputs), **attributes)
    x = net.add("Relu", net.dense(net.add("Flatten", net.pool(x), axis=1), 1024, 16))
    return net.model(net.dense(x, 16, 8))


def saved(model: ModelProto, level: str, path: Path) -> ModelProto:
    """Let onnxruntime optimise and save the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)


def operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("activation", "inputs", "attributes"),
    [("Relu", (), {}), ("LeakyRelu", (), {"alpha": 0.1})],
)
def test_extended_level(
    activation: str, inputs: tuple[float, ...], attributes: dict[str, Any], tmp_path: Path
) -> None:
    plain = network(activation, inputs, **attributes)
    fused = saved(plain, "ORT_ENABLE_EXTENDED", tmp_path / "fused.onnx")
    assert {"FusedConv", "FusedGemm"} <= operators(fused)
    imported = assert_imported(fused)
    expected = run(plain, pixels(2))
    np.testing.assert_allclose(run(imported.proto, pixels(2)), expected, rtol=1e-4, atol=1e-4)


def test_basic_level(tmp_path: Path) -> None:
    assert_imported(saved(network(), "ORT_ENABLE_BASIC", tmp_path / "basic.onnx"))


def test_the_level_of_one_cpu_is_named(tmp_path: Path) -> None:
    fused = saved(network(), "ORT_ENABLE_ALL", tmp_path / "all.onnx")
    if not any("nchwc" in node.domain for node in fused.graph.node):
        pytest.skip("this CPU has no layout of its own in onnxruntime")
    with pytest.raises(UnsupportedModelError, match=r"layout of one CPU.*ORT_ENABLE_BASIC"):
        load_model(fused.SerializeToString())


def fused_conv(activation: str = "", opset: int = 17, **attributes: Any) -> ModelProto:
    """Fuse by hand what an onnxruntime of another version may write."""
    net = Net()
    if activation:
        attributes["activation"] = activation
    weight, bias = net.store(net.draw(4, 1, 3, 3)), net.store(net.draw(4))
    x = net.add("FusedConv", net.scale("faces"), weight, bias, domain="com.microsoft",
                strides=[4, 4], pads=[1, 1, 1, 1], **attributes)  # fmt: skip
    made = net.model(net.dense(net.add("Flatten", net.pool(x)), 256, 8), opset=opset)
    made.opset_import.append(MICROSOFT)
    return made


def test_a_fused_convolution_without_activation() -> None:
    assert_imported(fused_conv())


@pytest.mark.parametrize("opset", [9, 17])
def test_a_fused_clip(opset: int) -> None:
    assert_imported(fused_conv("Clip", opset, activation_params=[0.0, 6.0]))


def fused_matmul(**attributes: Any) -> ModelProto:
    net = Net()
    x = net.add("Flatten", net.pool(net.add("Relu", net.conv("faces", 1, 4, strides=[4, 4]))))
    shape = (8, 256) if attributes.get("transB") else (256, 8)
    matrix = net.store(net.draw(*shape))
    made = net.model(net.add("FusedMatMul", x, matrix, domain="com.microsoft", **attributes))
    made.opset_import.append(MICROSOFT)
    return made


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"transB": 1, "alpha": 0.25}])
def test_a_fused_matmul(attributes: dict[str, Any]) -> None:
    assert_imported(fused_matmul(**attributes))


def test_a_fused_gemm_with_a_slope() -> None:
    net = Net()
    x = net.add("Flatten", net.pool(net.conv("faces", 1, 4, strides=[4, 4])))
    x = net.add("FusedGemm", x, net.store(net.draw(16, 256)), net.store(net.draw(16)),
                domain="com.microsoft", activation="LeakyRelu", activation_alpha=0.2, transB=1,
                alpha=0.5)  # fmt: skip
    made = net.model(net.dense(x, 16, 8))
    made.opset_import.append(MICROSOFT)
    assert_imported(made)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (fused_conv("Softplus"), "FusedConv node .*'Softplus'.*ORT_ENABLE_BASIC"),
        (fused_conv("LeakyRelu"), r"FusedConv node .*'LeakyRelu' with the numbers \[\]"),
        (fused_conv("Sigmoid"), "Sigmoid node .* is not supported"),
        (fused_matmul(transA=1), "FusedMatMul node .*transposes"),
    ],
)
def test_what_is_fused_otherwise_is_refused(made: ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(made.SerializeToString())


def test_a_fused_sum_is_refused() -> None:
    made = fused_conv("Relu")
    made.graph.node[2].input.append(made.graph.node[1].output[0])
    with pytest.raises(UnsupportedModelError, match=r"second feature map.*without branches"):
        load_model(made.SerializeToString())


@pytest.mark.parametrize(
    ("op", "domain", "message"),
    [
        ("Gelu", "com.microsoft", r"com.microsoft.Gelu node .*onnxruntime's own.*ORT_ENABLE_BASIC"),
        ("ReorderInput", "com.microsoft.nchwc", r"layout of one CPU.*ORT_ENABLE_BASIC"),
        ("Conv", "com.ms.internal.nhwc", r"layout of one CPU"),
        ("Plugin", "com.example", r"com.example.Plugin node .* is not a standard ONNX operator"),
    ],
)
def test_operators_of_other_domains_are_named(op: str, domain: str, message: str) -> None:
    net = Net()
    x = net.add(op, net.conv("faces", 1, 4), domain=domain)
    made = net.model(net.dense(net.add("Flatten", x), 4 * 4096, 8))
    with pytest.raises(UnsupportedModelError, match=message):
        load_model(made.SerializeToString())


def test_the_standard_domain_written_out() -> None:
    made = network()
    made.opset_import[0].domain = "ai.onnx"
    for node in made.graph.node:
        node.domain = "ai.onnx"
    expected = run(network(), pixels(2))
    found = run(load_model(made.SerializeToString()).proto, pixels(2))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", [0, 1])
def test_a_fused_operator_without_its_inputs(inputs: int) -> None:
    for made in (fused_conv("Relu"), fused_matmul(transB=1)):
        node = next(n for n in made.graph.node if n.op_type.startswith("Fused"))
        del node.input[inputs:]
        with pytest.raises(ModelError):
            load_model(made.SerializeToString())
