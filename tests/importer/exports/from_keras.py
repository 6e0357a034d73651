"""Export narrow networks with Keras's own exporter and with tf2onnx.

Run ``python -m tests.importer.exports.from_keras FOLDER`` to write the files anew.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers

OPSET = 17


def networks():
    """Return the networks by name; all end in a softmax over seven emotions but one."""
    return {
        "bn_after_relu": network(order="conv relu bn"),
        "bn_before_relu": network(order="conv bn relu"),
        "logits": network(order="conv relu", softmax=False),
        "average_head": network(order="conv relu bn", head="average", dense=()),
        "maximum_head": network(order="conv relu bn", head="maximum"),
        "convolution_head": network(order="conv relu bn", head="convolution"),
        "leaky_relu": network(order="conv relu bn", activation="leaky"),
        "relu6": network(order="conv relu bn", activation="relu6"),
        "prelu": network(order="conv relu", activation="prelu"),
        "rescaled_rgb": network(order="conv relu bn", channels=3, rescaling=True),
        "zero_padding": network(order="conv relu bn", padding="explicit"),
        "strides": strided(),
        "separable": separable(),
    }


def network(
    order, head="flatten", dense=(16,), activation="relu", channels=1, rescaling=False,
    padding="same", softmax=True,
):  # fmt: skip
    """Build a small VGG as people write it."""
    x = faces = keras.Input((32, 32, channels))
    if rescaling:
        x = layers.Rescaling(1 / 255)(x)
    activate = {
        "relu": layers.ReLU,
        "leaky": lambda: layers.LeakyReLU(0.1),
        "relu6": lambda: layers.ReLU(6.0),
        "prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    }[activation]
    for filters in (4, 6, 6):
        if padding == "explicit":
            x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(filters, 3, padding="same" if padding == "same" else "valid")(x)
        for step in order.split()[1:]:
            x = layers.BatchNormalization()(x) if step == "bn" else activate()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(0.25)(x)
    if head == "convolution":
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 1)(x))
    else:
        pooling = {
            "average": layers.GlobalAveragePooling2D,
            "maximum": layers.GlobalMaxPooling2D,
            "flatten": layers.Flatten,
        }
        x = pooling[head]()(x)
        for width in dense:
            x = layers.Dense(width, activation="relu")(x)
            x = layers.BatchNormalization()(x)
        x = layers.Dense(7)(x)
    return _trained(faces, layers.Softmax()(x) if softmax else x)


def strided():
    """Build a network that shrinks by strides and ends in an average pooling."""
    x = faces = keras.Input((32, 32, 1))
    for filters in (4, 6, 6):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return _trained(faces, layers.Dense(7, activation="softmax")(x))


def separable():
    """Build a network of separable convolutions without any dense layer."""
    x = faces = keras.Input((32, 32, 1))
    for filters in (4, 6, 6):
        x = layers.SeparableConv2D(filters, 3, padding="same")(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(7, 3, padding="same")(x))
    return _trained(faces, layers.Activation("softmax")(x))


def _trained(faces, scores):
    """Give a network weights under which no step is the identity, and answers in 0..1."""
    model = keras.Model(faces, scores)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, kind = weight.shape, weight.path.rsplit("/", 1)[-1]
        if kind == "moving_variance":
            value = rng.uniform(0.5, 1.5, shape)
        elif kind == "gamma":  # a negative one turns the order of values around
            value = rng.uniform(0.5, 1.5, shape) * np.where(rng.random(shape) < 0.25, -1, 1)
        elif kind in ("beta", "moving_mean", "bias", "alpha"):
            value = rng.standard_normal(shape) * 0.2
        else:
            value = rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[:-1])))
        weight.assign(value.astype(np.float32))
    last = [each for each in model.layers if isinstance(each, layers.Dense | layers.Conv2D)][-1]
    pixels = (rng.random((8, *model.input_shape[1:])) * 255).astype(np.float32)
    activation, last.activation = last.activation, keras.activations.linear
    largest = np.abs(np.asarray(keras.Model(model.inputs, last.output)(pixels))).max()
    last.activation = activation
    last.kernel.assign(last.kernel.numpy() * 4 / largest)
    return model


def write(folder):
    """Export every network in each of the three ways."""
    for name, model in networks().items():
        shape = (None, *model.input_shape[1:])
        spec = (tf.TensorSpec(shape, tf.float32, name="input"),)

        def call(x, model=model):
            return model(x, training=False)

        graph = tf.function(call, input_signature=spec)
        for prefix, options in (("tf2onnx", {}), ("tf2onnx_nchw", {"inputs_as_nchw": ["input"]})):
            path = str(folder / f"{prefix}_{name}.onnx")
            tf2onnx.convert.from_function(
                graph, input_signature=spec, opset=OPSET, output_path=path, **options
            )
        model.export(str(folder / f"keras_{name}.onnx"), format="onnx", verbose=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
