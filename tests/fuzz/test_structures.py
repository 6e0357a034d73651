"""Models whose structure is changed at random: nodes, shapes, weights, declarations."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ferplus_tvm.errors import ModelError
from ferplus_tvm.importer import load_model
from ferplus_tvm.kernels.cpu.backend import CpuBackend
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import plan
from ferplus_tvm.targets import VectorUnit
from tests.fuzz.targets import CORPUS

BACKEND = CpuBackend(VectorUnit(lanes=8, registers=16))
MODELS = [path.read_bytes() for path in sorted((CORPUS / "importer").glob("*.onnx"))]
OPERATORS = ["Conv", "Relu", "MaxPool", "Gemm", "MatMul", "Add", "Flatten", "Reshape", "If", "Loop"]
OPERATORS += ["Identity", "Dropout", "BatchNormalization", "Softmax", "Sub", "Transpose", "Nothing"]
OPERATORS += ["Cast", "CastLike", "DequantizeLinear", "Gather", "Slice", "Exp", "Div", "Squeeze"]
OPERATORS += ["Pad", "Split", "ReduceSum", "LogSoftmax", "FusedConv", "FusedMatMul", "F", "G"]
DOMAINS = ["", "ai.onnx", "com.example", "com.microsoft", "pkg"]
NUMBERS = [0, 1, -1, 2, 3, 64, 1 << 20, -(1 << 40), (1 << 62)]
VALUES = [np.nan, np.inf, -np.inf, 0.0, 1e38, -1e38, 1e-45]


def change_node(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = rng.choice([model.graph, *model.functions])
    if not graph.node:
        return
    node = rng.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)] or [""]
    change = rng.randrange(7)
    if change == 0:
        node.op_type = rng.choice(OPERATORS)
    elif change == 1 and node.input:  # missing, swapped and circular inputs
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "absent"])
    elif change == 2 and node.output:
        node.output[0] = rng.choice([*names, ""])
    elif change == 3:
        graph.node.add().CopyFrom(node)
    elif change == 4:
        graph.node.remove(node)
    elif change == 5 and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
            if rng.random() < 0.3:
                attribute.ints.append(rng.choice(NUMBERS))
        else:
            attribute.i, attribute.f = rng.choice(NUMBERS), rng.choice(VALUES)
    else:
        node.domain = rng.choice(DOMAINS)


def change_weight(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    weight = rng.choice(model.graph.initializer)
    change = rng.randrange(5)
    if change == 0 and weight.dims:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice(NUMBERS)
    elif change == 1:
        weight.data_type = rng.choice(range(0, 24))
    elif change == 2:
        array = numpy_helper.to_array(weight).copy()
        if array.size and array.dtype.kind == "f":
            array.flat[rng.randrange(array.size)] = rng.choice(VALUES)
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(array, name))
    elif change == 3:
        weight.data_location = TensorProto.EXTERNAL
        places = ["/etc/passwd", "../../secret", "weights.bin", "", "C:\\x", "a\0b", "x" * 5000]
        for key, value in (("location", rng.choice(places)), ("length", str(rng.choice(NUMBERS)))):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    else:
        weight.ClearField("raw_data")


def change_declaration(model: onnx.ModelProto, rng: random.Random) -> None:
    change = rng.randrange(4)
    if change == 0 and model.graph.input:
        shape = model.graph.input[0].type.tensor_type.shape
        if shape.dim:
            shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(NUMBERS)
    elif change == 1 and model.opset_import:
        model.opset_import[0].version = rng.choice([0, 1, 5, 6, 7, 9, 13, 17, 21, 30, -1, 1 << 40])
    elif change == 2:
        model.ir_version = rng.choice([0, 1, 3, 7, 10, 1 << 30])
    elif model.graph.output:
        model.graph.output[0].name = rng.choice(["", "absent", model.graph.output[0].name])


def try_structures(count: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    ended = {"success": 0, "error": 0}
    for _ in range(count):
        model = onnx.load_from_string(rng.choice(MODELS))
        for _ in range(rng.randint(1, 3)):
            try:
                rng.choice((change_node, change_weight, change_declaration))(model, rng)
            except Exception:  # a change of a change that onnx itself cannot read any more
                continue
        try:
            layers = layers_of(load_model(model.SerializeToString()).proto)
            plan(layers, 1, BACKEND, lambda workload: None)
            ended["success"] += 1
        except ModelError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            ended["error"] += 1
    return ended


def test_changed_structures_are_imported_or_refused() -> None:
    ended = try_structures(600, seed=1)
    assert min(ended.values()) > 20


@pytest.mark.long
def test_many_changed_structures_are_imported_or_refused() -> None:
    try_structures(30_000, seed=2)


def test_external_data_is_not_looked_for_outside_of_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    folder = tmp_path / "model"
    folder.mkdir()
    for place in ("../secret", str(tmp_path / "secret"), "a/../../secret"):
        model = onnx.load_from_string(MODELS[0])
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", place
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError):
            load_model(folder / "model.onnx")
