"""Random networks of all forms that are supported give the scores that onnxruntime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferplus_tvm.importer import load_model
from tests.importer.networks import Net, assert_imported, pixels
from tests.importer.support import run

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


class Draw:
    """A network that grows by choices of hypothesis, and knows the shape of its maps."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.net = Net(data.draw(st.integers(0, 9)))
        self.channels = self.choose(1, 3)
        self.size = self.choose(32, 37, 48, 64)
        self.input_channels, self.input_size = self.channels, self.size

    def choose(self, *options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def numbers(self, *shape: int) -> str:
        signs = self.net.random.choice([-1, 1], shape) if self.choose(False, True) else 1
        return self.net.store(self.net.random.uniform(0.5, 1.5, shape) * signs)

    # --- what may stand on maps ----------------------------------------------------------------

    def conv(self, x: str) -> str:
        kernel, stride = self.choose(1, 3, 5), self.choose(1, 2)
        outputs = self.choose(4, 6)
        group = self.choose(1, 1, 2) if self.channels % 2 == 0 and outputs % 2 == 0 else 1
        extra: dict[str, Any] = {"strides": [stride, stride], "group": group}
        kind = self.choose("pads", "none", "SAME_UPPER", "SAME_LOWER", "uneven")
        if self.size < kernel:
            kind = "SAME_UPPER"
        if kind.startswith("SAME"):
            extra["auto_pad"], after = kind, -(-self.size // stride)
        else:
            before, behind = {
                "pads": (kernel // 2, kernel // 2), "none": (0, 0), "uneven": (0, kernel // 2)
            }[kind]  # fmt: skip
            extra["pads"] = [before, before, behind, behind]
            after = (self.size + before + behind - kernel) // stride + 1
        x = self.net.conv(x, self.channels, outputs, (kernel, kernel), **extra)
        self.channels, self.size = outputs, after
        return x

    def step(self, x: str) -> str:
        net, c = self.net, self.channels
        match self.choose("relu", "leaky", "clip", "max", "prelu", "norm", "norm", "mul", "add",
                          "sub", "last", "nothing", "max-pool", "mean-pool", "pad", "branches",
                          "single", "where", "order", "same-pool", "pad-pool",
                          "counted"):  # fmt: skip
            case "relu":
                return net.add("Relu", x)
            case "leaky":
                return net.add("LeakyRelu", x, alpha=self.choose(0.0, 0.1, 0.3))
            case "clip":
                return net.add("Clip", x, net.store(self.choose(0.0, -0.5)), net.store(1.5))
            case "max":
                return net.add("Max", x, net.store(net.random.uniform(-1, 0.2, (c, 1, 1))))
            case "prelu":
                shape = self.choose((1,), (c, 1, 1))
                return net.add("PRelu", x, net.store(net.random.uniform(-0.2, 0.5, shape)))
            case "norm":
                return net.norm(x, c)
            case "mul" | "add" | "sub" as op:
                constant = self.numbers(*self.choose((c, 1, 1), (1, c, 1, 1), (1,), ()))
                pair = (constant, x) if self.choose(False, True) else (x, constant)
                return net.add(op.capitalize(), *pair)
            case "last":
                x = net.add("Transpose", x, perm=TO_LAST)
                x = net.add("Add", net.add("Mul", x, self.numbers(c)), self.numbers(1, 1, c))
                return net.add("Transpose", x, perm=TO_FIRST)
            case "nothing":
                x = net.add("Reshape", net.add("Dropout", x), net.ints(0, c, -1))
                return net.add("Reshape", x, net.ints(0, 0, self.size, self.size))
            case "max-pool" | "mean-pool" as op if self.size >= 4:
                stride = self.choose(1, 2)
                self.size = (self.size - 2) // stride + 1
                kind = "MaxPool" if op == "max-pool" else "AveragePool"
                return net.pool(x, kind, strides=[stride, stride])
            case "pad":
                # A convolution follows, so that the border has a place to go.
                x = net.add("Pad", x, net.ints(0, 0, 1, 0, 0, 0, 0, 1))
                return net.conv(x, c, c, (3, 3), pads=[0, 1, 1, 0])
            case "branches":
                negative = net.add("Relu", net.add("Neg", x))
                scaled = net.add("Mul", negative, net.store(self.choose(-0.25, -0.5)))
                return net.add("Add", net.add("Relu", x), scaled)
            case "where":
                mask = net.add("Greater", x, net.store(0.0))
                return net.add("Where", mask, x, net.store(0.0))
            case "order":
                return net.add("Gather", x, net.ints(*net.random.permutation(c)), axis=1)
            case "same-pool":
                stride = self.choose(1, 2)
                self.size = -(-self.size // stride)
                pad = self.choose("SAME_UPPER", "SAME_LOWER")
                return net.pool(x, strides=[stride, stride], auto_pad=pad)
            case "pad-pool" if self.size >= 4:
                x = net.add("Pad", net.add("Relu", x), net.ints(0, 0, 0, 1, 0, 0, 1, 0))
                self.size = (self.size - 1) // 2 + 1
                return net.pool(x)
            case "counted":
                return net.pool(x, "AveragePool", kernel_shape=[3, 3], strides=[1, 1],
                                pads=[1, 1, 1, 1], count_include_pad=1)  # fmt: skip
            case "single":
                return net.add("Mul", x, net.store(self.choose(1.0, 0.5, -2.0)))
        return x

    # --- from maps to scores -------------------------------------------------------------------

    def rows(self, x: str) -> tuple[str, int]:
        net, c, s = self.net, self.channels, self.size
        count = c * s * s
        match self.choose("flatten", "reshape", "last", "mean", "max", "reduce", "conv", "norm"):
            case "flatten":
                return net.add("Flatten", x), count
            case "reshape":
                return net.add("Reshape", x, net.ints(-1, count)), count
            case "last":
                x = net.add("Transpose", x, perm=TO_LAST)
                return net.add("Reshape", x, net.ints(0, -1)), count
            case "mean":
                return net.add("Flatten", net.add("GlobalAveragePool", x)), c
            case "max":
                return net.add("Squeeze", net.add("GlobalMaxPool", x), net.ints(2, 3)), c
            case "reduce":
                x = net.add("Transpose", x, perm=TO_LAST)
                return net.add("ReduceMean", x, axes=[1, 2], keepdims=0), c
            case "conv":
                x = net.conv(x, c, 5, (s, s), pads=[0] * 4)
                return net.add("Reshape", x, net.ints(-1, 5)), 5
            case _:
                return net.norm(net.add("Flatten", x), count), count

    def head(self, x: str) -> str:
        net = self.net
        x, count = self.rows(x)
        for _ in range(self.choose(0, 1, 2)):
            x, count = net.dense(x, count, 6), 6
            for _ in range(self.choose(1, 2)):
                match self.choose("relu", "norm", "leaky", "clip"):
                    case "relu":
                        x = net.add("Relu", x)
                    case "norm":
                        x = net.norm(x, 6)
                    case "leaky":
                        x = net.add("LeakyRelu", x, alpha=0.2)
                    case "clip":
                        x = net.add("Clip", x, net.store(0.0), net.store(6.0))
        classes = self.choose(2, 7, 8)
        x = net.add("MatMul", x, net.store(net.draw(count, classes, scale=count**-0.5)))
        match self.choose("add", "relu", "gather", "norm"):
            case "add":
                return net.add("Add", x, net.store(net.draw(classes)))
            case "relu":
                return net.add("LeakyRelu", x, alpha=0.5)
            case "gather":
                return net.add("Gather", x, net.ints(*range(classes)[::-1]), axis=1)
        return net.norm(x, classes)

    def model(self) -> tuple[onnx.ModelProto, bool]:
        """Make the network; also say whether it takes its channels last."""
        net, c, s = self.net, self.channels, self.size
        last = self.choose(False, True)
        x = net.add("Transpose", "faces", perm=TO_FIRST) if last else "faces"
        match self.choose("one", "channels", "norm", "none"):
            case "one":
                x = net.scale(x)
            case "channels":
                spread = net.random.uniform(100, 150, (c, 1, 1))
                x = net.scale(x, spread, spread / 2)
            case "norm":
                x = net.norm(net.scale(x), c)
            case _:
                x = net.add("Mul", x, net.store(1 / 255))
        for _ in range(self.choose(1, 2, 3)):
            x = self.conv(x)
            for _ in range(self.choose(0, 1, 2, 3)):
                x = self.step(x)
        shape = ["N", s, s, c] if last else ["N", c, s, s]
        return net.model(self.head(x), shape), last


@settings(
    max_examples=40, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.data())
def test_scores_are_those_of_the_file(data: st.DataObject) -> None:
    draw = Draw(data)
    model, last = draw.model()
    faces = pixels(2, draw.input_channels, draw.input_size)
    given = faces.transpose(0, 2, 3, 1).copy() if last else faces
    imported = assert_imported(model, given, tolerance=1e-4, flat=True)
    assert (imported.channels, imported.size) == (draw.input_channels, draw.input_size)
    again = load_model(imported.proto.SerializeToString()).proto
    found, expected = run(again, faces), run(imported.proto, faces)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-30)
    # A tidy graph is its own: nothing is left to fold.
    assert [node.op_type for node in again.graph.node] == [
        node.op_type for node in imported.proto.graph.node
    ]
