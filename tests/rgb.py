"""A small network of another kind than FER+: RGB faces of 48 x 48 pixels, five classes."""

from __future__ import annotations

import onnx

from tests.importer.networks import Net

LABELS = ("calm", "glad", "sad", "cross", "afraid")


def network() -> onnx.ModelProto:
    net = Net(11)
    x = net.scale("faces")
    x = net.pool(net.add("Relu", net.conv(x, 3, 8)), kernel_shape=[4, 4], strides=[4, 4])
    x = net.pool(net.add("Relu", net.conv(x, 8, 8)), kernel_shape=[4, 4], strides=[4, 4])
    return net.model(net.dense(net.add("Flatten", x, axis=1), 8 * 9, 5), ("N", 3, 48, 48))
