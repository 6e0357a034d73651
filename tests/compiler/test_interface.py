"""What is stated, hinted at and assumed of a model's pixels and labels, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.compiler.interface import Interface
from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer import ImportedModel, load_model
from ferplus_tvm.importer.labels import ORDERS
from ferplus_tvm.zoo import resolve
from tests.importer.networks import Net
from tests.models import make_weights, official, pytorch_style

Step = Callable[[Net, str], str]
UNIT, NORMALISED = Scaling.of((0, 1)), Scaling.of((0, 1), 0.5, 0.5)


def network(
    step: Step = lambda net, x: x, classes: int = 7, channels: int = 1, **metadata: str
) -> ImportedModel:
    """Import a small network of any classes, whose graph begins with ``step``."""
    net = Net()
    x = net.add("Relu", net.conv(step(net, "faces"), channels, 4))
    x = net.pool(x, kernel_shape=[8, 8], strides=[8, 8])
    scores = net.dense(net.add("Flatten", x, axis=1), 4 * 64, classes)
    model = net.model(scores, ("N", channels, 64, 64))
    onnx.helper.set_model_props(model, {k.replace("__", "."): v for k, v in metadata.items()})
    return load_model(model.SerializeToString())


def scaled(offset: Any, factor: Any) -> Step:
    return lambda net, x: net.scale(x, offset, factor)


def interface(model: ImportedModel, **stated: Any) -> Interface:
    return Interface.of(model, stated.get("scaling"), stated.get("labels"))


FER2013 = ORDERS["fer2013"]
CLASSES = tuple(f"class {at}" for at in range(7))


# --- pixels ----------------------------------------------------------------------------------


def test_a_graph_without_scaling_is_asked_about() -> None:
    found = interface(network(), labels=FER2013)

    (warning,) = found.warnings
    assert found.scaling == RAW and "does not scale its input" in warning
    assert "raw pixels 0..255 are assumed" in warning and "--input-range" in warning


@pytest.mark.parametrize("stated", [RAW, UNIT, NORMALISED], ids=str)
def test_what_is_stated_is_taken_without_a_word(stated: Scaling) -> None:
    found = interface(network(), labels=FER2013, scaling=stated)
    assert found == Interface(stated, FER2013, (), (), graph_scales=False)


@pytest.mark.parametrize("hint", ["0,1", "0,255", "-1,1"])
def test_metadata_are_taken_for_a_graph_without_scaling(hint: str) -> None:
    found = interface(network(input_range=hint), labels=FER2013)
    assert found.scaling == Scaling.of(map(float, hint.split(",")))
    assert found.warnings == () and "input_range" in found.notes[0]


@pytest.mark.parametrize(
    "step",
    [
        scaled(127.5, 127.5),
        scaled(0, 255),
        scaled(128, 1),
        scaled(131, 64),
        lambda net, x: net.scale(net.scale(x, 0, 255), 0.485, 0.229),
        lambda net, x: net.add(
            "BatchNormalization", x, *(net.store([v]) for v in (1, 0, 120, 4e3))
        ),
    ],
    ids=["-1..1", "0..1", "mean", "normalised", "torchvision", "batch normalisation"],
)
def test_a_graph_that_scales_raw_pixels_is_given_them_without_a_word(step: Step) -> None:
    found = interface(network(step), labels=FER2013)
    assert found == Interface(RAW, FER2013, (), (), graph_scales=True)


@pytest.mark.parametrize(
    "step",
    [
        scaled(0.5, 0.5),
        scaled(0.485, 0.229),
        scaled(0.5, 1),
        lambda net, x: net.add(
            "BatchNormalization", x, *(net.store([v]) for v in (1, 0, 0.5, 0.06))
        ),
    ],
    ids=["-1..1", "torchvision", "mean", "batch normalisation"],
)
def test_a_graph_that_scales_pixels_of_0_to_1_is_asked_about(step: Step) -> None:
    (warning,) = interface(network(step), labels=FER2013).warnings
    assert "made for pixels in another range" in warning and "--input-range" in warning

    assert interface(network(step), labels=FER2013, scaling=UNIT).warnings == ()
    hinted = interface(network(step, input_range="[0, 1]"), labels=FER2013)
    assert hinted.scaling == UNIT and hinted.warnings == ()


@pytest.mark.parametrize(
    ("step", "stated"),
    [
        (scaled(127.5, 127.5), UNIT),
        (scaled(0, 255), Scaling.of((-1, 1))),
        (scaled(0, 255), Scaling.of((0, 1), 0.45, 0.22)),
        (scaled(114, 57), Scaling.of((0, 1), 0.45, 0.22)),
        (lambda net, x: x, Scaling.of((0, 255), 0.485, 0.229)),
    ],
    ids=[
        *("twice to -1..1", "twice", "normalised too", "twice normalised"),
        "mean and std of the other range",
    ],
)
def test_scaling_that_fits_nothing_is_told(step: Step, stated: Scaling) -> None:
    found = interface(network(step), labels=FER2013, scaling=stated)
    (warning,) = found.warnings
    assert found.scaling == stated and "reach the first layer" in warning


def test_metadata_that_describe_the_graph_s_own_scaling_say_nothing_else() -> None:
    found = interface(network(scaled(127.5, 127.5), mean="127.5", std="127.5"), labels=FER2013)
    assert found == Interface(RAW, FER2013, (), (), graph_scales=True)


def test_metadata_that_contradict_are_told() -> None:
    (warning,) = interface(
        network(scaled(127.5, 127.5), input_range="0,1"), labels=FER2013
    ).warnings
    assert "the graph scales its input itself" in warning and "raw pixels" in warning

    other = interface(network(input_range="0,1"), labels=FER2013, scaling=Scaling.of((-1, 1)))
    (warning,) = other.warnings
    assert "input_range, 0..1" in warning and "-1..1 is stated" in warning

    (warning,) = interface(network(mean="0.5", std="0.5"), labels=FER2013).warnings[:1]
    assert "may be of pixels in 0..1 or in 0..255" in warning
    assert interface(network(mean="0.5", std="0.5"), labels=FER2013, scaling=UNIT).warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "channels"),
    [
        ("Image__BitmapPixelFormat", "Bgr8", 3),
        ("Image__BitmapPixelFormat", "Gray8", 3),
        ("Image__BitmapPixelFormat", "Rgb8", 1),
        ("color_format", "BGR", 3),
        ("channel_order", "rgb", 1),
    ],
)
def test_a_pixel_format_that_is_not_what_the_model_is_given_is_told(
    key: str, value: str, channels: int
) -> None:
    metadata = {key: value, "input_range": "0,1"}
    (warning,) = interface(network(channels=channels, **metadata), labels=FER2013).warnings
    assert key.replace("__", ".") in warning and ("RGB" if channels == 3 else "grey") in warning


@pytest.mark.parametrize(("pixel_format", "channels"), [("Rgb8", 3), ("Gray8", 1), ("Yuv", 1)])
def test_a_pixel_format_that_fits_is_not(pixel_format: str, channels: int) -> None:
    metadata = {"Image__BitmapPixelFormat": pixel_format, "input_range": "0,1"}
    assert interface(network(channels=channels, **metadata), labels=FER2013).warnings == ()


def test_mean_and_std_of_other_channels_are_refused() -> None:
    of_colour = Scaling.of((0, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ModelShapeError, match="3 channels, and the model takes 1"):
        interface(network(), scaling=of_colour)
    assert interface(network(channels=3), scaling=of_colour).scaling == of_colour


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [official, pytorch_style])
def test_the_network_of_ferplus_has_its_labels_without_a_word(model: Any) -> None:
    imported = load_model(model(make_weights()).SerializeToString())
    assert interface(imported) == Interface(RAW, fer.EMOTIONS, (), (), graph_scales=True)


def test_the_bundled_model_needs_no_word() -> None:
    found = interface(load_model(resolve("bundled")))
    assert (found.scaling, found.labels, found.warnings) == (RAW, fer.EMOTIONS, ())


def test_eight_classes_of_another_network_are_asked_about() -> None:
    found = interface(network(scaled(127.5, 127.5), classes=8))
    (warning,) = found.warnings
    assert found.labels == fer.EMOTIONS and "FER+'s are assumed" in warning
    assert "affectnet8" in warning and "--labels" in warning


def test_seven_classes_have_no_names_but_stated_ones() -> None:
    found = interface(network(scaled(0, 255)))
    (warning,) = found.warnings
    assert found.labels == CLASSES and "fer2013" in warning and "--labels" in warning


@pytest.mark.parametrize("key", ["labels", "class_names"])
def test_labels_of_the_metadata_are_taken(key: str) -> None:
    order = sorted(fer.EMOTIONS)
    model = official(make_weights())
    onnx.helper.set_model_props(model, {key: str(order)})

    found = interface(load_model(model.SerializeToString()))

    assert found.labels == tuple(order) and found.warnings == ()
    assert key in found.notes[0]


def test_labels_that_contradict_the_metadata_are_told() -> None:
    model = network(scaled(0, 255), labels=",".join(sorted(FER2013)))
    (warning,) = interface(model, labels=FER2013).warnings
    assert "angry, disgust, fear, happy, neutral, sad, surprise" in warning

    spelt = network(scaled(0, 255), labels="Anger,Disgust,Fear,Happiness,Sadness,Surprised,Neutral")
    assert interface(spelt, labels=FER2013).warnings == ()


def test_metadata_of_other_classes_are_told_and_not_taken() -> None:
    model = official(make_weights())
    onnx.helper.set_model_props(model, {"labels": ",".join(FER2013)})

    found = interface(load_model(model.SerializeToString()))

    assert found.labels == fer.EMOTIONS
    assert "7 names for a model of 8 classes" in found.warnings[0]
    assert "FER+'s are assumed" in found.warnings[1]


@pytest.mark.parametrize("labels", [("a", "b"), fer.EMOTIONS], ids=len)
def test_a_wrong_number_of_labels_is_refused(labels: Sequence[str]) -> None:
    with pytest.raises(ModelShapeError, match=f"names {len(labels)} classes .* gives 7 scores"):
        interface(network(), labels=tuple(labels))
