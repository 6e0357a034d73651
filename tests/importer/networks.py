"""Small networks of any size and form, written node by node as exporters write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ferplus_tvm.importer import ImportedModel, load_model
from ferplus_tvm.importer.contract import check_tidy
from tests.importer.support import run


class Net:
    """Collects nodes and stored arrays; each method returns the name of the value that it made."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []

    def store(self, array: Any, kind: Any = np.float32) -> str:
        name = f"stored_{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.array(array, kind, order="C"), name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.store(numbers, np.int64)

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        made = [f"{name}_out", *(f"{name}_out_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, made, name=name, **attributes))
        return made[0]

    def draw(self, *shape: int, scale: float = 1.0) -> NDArray[Any]:
        """Draw weights around 0 whose sum over the inputs is 0, so that faces stay different."""
        drawn = self.random.standard_normal(shape) * scale
        return drawn - drawn.mean() if drawn.size > 1 else drawn

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: Sequence[int] = (3, 3), **attributes: Any
    ) -> str:
        per_group = inputs // attributes.get("group", 1)
        scale = (2 / (per_group * kernel[0] * kernel[1])) ** 0.5
        weight = self.store(self.draw(outputs, per_group, *kernel, scale=scale))
        bias = self.store(self.draw(outputs, scale=0.3))
        if "auto_pad" not in attributes:
            attributes.setdefault("pads", [kernel[0] // 2, kernel[1] // 2] * 2)
        return self.add("Conv", x, weight, bias, kernel_shape=list(kernel), **attributes)

    def norm(self, x: str, channels: int, **attributes: Any) -> str:
        """Normalise; a fifth of the factors are negative, as trained ones can be."""
        sign = np.where(np.arange(channels) % 5 == 3, -1, 1)
        scale = self.random.uniform(0.5, 1.5, channels) * sign
        draws = [scale, *self.random.normal(0, 0.3, (2, channels)),
                 self.random.uniform(0.5, 1.5, channels)]  # fmt: skip
        return self.add("BatchNormalization", x, *(self.store(d) for d in draws), **attributes)

    def pool(self, x: str, op: str = "MaxPool", **attributes: Any) -> str:
        return self.add(op, x, **{"kernel_shape": [2, 2], "strides": [2, 2], **attributes})

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weight = self.store(self.draw(inputs, outputs, scale=(2 / inputs) ** 0.5))
        return self.add("Gemm", x, weight, self.store(self.draw(outputs, scale=0.3)))

    def scale(self, x: str, offset: Any = 127.5, factor: Any = 127.5) -> str:
        return self.add("Div", self.add("Sub", x, self.store(offset)), self.store(factor))

    def model(
        self,
        output: str,
        shape: Sequence[int | str | None] | None = ("N", 1, 64, 64),
        kind: int = TensorProto.FLOAT,
        **options: Any,
    ) -> onnx.ModelProto:
        """Make the model with the input ``faces``."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("faces", kind, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.stored,
        )
        made: onnx.ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", options.pop("opset", 17))], ir_version=8
        )
        return made


def around(
    middle: Callable[[Net, str], str], rows: int = 4 * 16 * 16, **options: Any
) -> onnx.ModelProto:
    """Make a network on 32x32 faces of a convolution, which gives (4, 16, 16), and a dense layer.

    ``middle`` stands between them and makes maps or rows of ``rows`` values.
    """
    net = Net()
    x = net.conv(net.scale("faces"), 1, 4, strides=[2, 2])
    x = net.add("Flatten", middle(net, x))
    return net.model(net.dense(x, rows, 5), ["N", 1, 32, 32], **options)


def layers(imported: ImportedModel) -> list[str]:
    """Return the operators of a tidy graph behind the scaling of its input."""
    names = [node.op_type for node in imported.proto.graph.node]
    return names[names.index("Mul") + 1 :] if "Mul" in names else names


def pixels(batch: int, channels: int = 1, size: int = 64, seed: int = 3) -> NDArray[np.float32]:
    """Draw faces of raw pixels, float32 (batch, channels, size, size) in 0..255."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (batch, channels, 4, 4))
    blocks = coarse.repeat(size // 4 + 1, 2).repeat(size // 4 + 1, 3)[..., :size, :size]
    noise = rng.uniform(-40, 40, (batch, channels, size, size))
    return np.clip(blocks + noise, 0, 255).astype(np.float32)


def assert_imported(
    model: onnx.ModelProto,
    given: NDArray[np.float32] | None = None,
    *,
    batch: int = 2,
    tolerance: float = 1e-5,
    flat: bool = False,
) -> ImportedModel:
    """The model imports, and its tidy graph gives the scores that onnxruntime gives for the file.

    ``given`` is the file's own input where it differs from (N, C, S, S); ``flat`` networks may
    give all faces the same.
    """
    imported = load_model(model.SerializeToString())
    check_tidy(imported.proto)
    faces = pixels(batch, imported.channels, imported.size)
    expected = run(model, faces if given is None else given)
    found = run(imported.proto, faces)
    assert flat or np.ptp(expected, axis=0 if batch > 1 else None).max() > 0
    limit = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=limit)
    return imported
