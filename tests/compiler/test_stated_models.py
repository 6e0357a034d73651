"""Models with the scaling outside of their graph, and with other labels, from compile to answer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.measurements import sample_jpeg
from ferplus_tvm.bench.subjects import open_library, write_model
from ferplus_tvm.bench.timing.interleaved import difference
from ferplus_tvm.bench.timing.process import EngineProcess
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import ModelShapeError, UnsupportedModelError
from ferplus_tvm.importer import load_model
from tests.artifacts import assert_sentence
from tests.conftest import Shared
from tests.importer.networks import Net, pixels
from tests.importer.support import run

# torchvision's numbers, as nearly everybody who trains with it has them
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FACE = (3, 48, 48)


class Made(NamedTuple):
    file: Path
    result: CompileResult


def model(**metadata: str) -> onnx.ModelProto:
    """Write a small network of seven classes without any scaling in its graph."""
    net = Net(5)
    x = net.pool(net.add("Relu", net.conv("faces", 3, 4)))
    x = net.pool(net.add("Relu", net.conv(x, 4, 8)), kernel_shape=[4, 4], strides=[4, 4])
    made = net.model(net.dense(net.add("Flatten", x, axis=1), 8 * 36, 7), ("N", *FACE))
    onnx.helper.set_model_props(made, metadata)
    return made


@pytest.fixture(scope="session")
def made(shared: Shared) -> Made:
    """A network of RGB faces as torchvision normalises them, with FER2013's labels, compiled."""

    def build(folder: Path) -> Made:
        file = folder / "normalised.onnx"
        onnx.save(model(), file)
        result = fer.compile(
            file,
            output=folder / "normalised.so",
            batch_sizes=(1, 2),
            input_range=(0, 1),
            mean=MEAN,
            std=STD,
            labels="fer2013",
            channels=3,
            strict=True,
            isolated=True,
        )
        return Made(file, result)

    return shared.make("stated_model", build)


def test_raw_faces_get_the_scores_that_onnxruntime_gives_for_scaled_ones(made: Made) -> None:
    x = pixels(3, *FACE[:2]).round()
    mean, std = (np.reshape(each, (3, 1, 1)).astype(np.float32) for each in (MEAN, STD))
    expected = run(model(), (x / 255 - mean) / std)

    with fer.load(made.result.path) as engine:
        scores = engine.scores(x)
        predicted = engine.predict(x[0].transpose(1, 2, 0).astype(np.uint8))

    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert predicted.label == engine.labels[int(expected[0].argmax())]


def test_what_was_stated_is_kept(made: Made) -> None:
    manifest = made.result.manifest
    assert manifest.scaling == Scaling.of((0, 1), MEAN, STD) and manifest.value_range == (0, 255)
    assert manifest.labels == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert (manifest.input_shape, manifest.output_shape) == (("N", *FACE), ("N", 7))
    assert made.result.warnings == made.result.notes == manifest.warnings == ()


def test_the_peers_of_a_benchmark_answer_as_the_library(made: Made, tmp_path: Path) -> None:
    path, ours = tmp_path / "peer.onnx", made.result.path
    write_model(made.file, open_library(ours, "cpu"), path)

    with (
        EngineProcess("ours", OURS, str(ours), 1, 2, FACE) as library,
        EngineProcess("peer", "onnxruntime", str(path), 1, 2, FACE) as peer,
    ):
        for each in (library, peer):
            each.begin("scores")
        assert library.scores.shape == (2, 7) and library.off_float64 < 1e-5
        assert difference(library, peer) < 1e-5


def test_a_peer_reads_a_picture_for_the_library_s_own_face(made: Made, tmp_path: Path) -> None:
    path, labels = tmp_path / "peer.onnx", made.result.manifest.labels
    write_model(made.file, open_library(made.result.path, "cpu"), path)

    with EngineProcess("peer", "onnxruntime", str(path), 1, 1, FACE) as peer:
        seen = peer.begin_jpeg(sample_jpeg(), labels)
    with fer.load(made.result.path) as engine:
        assert engine.predict(sample_jpeg()).label == seen


def test_strict_refuses_what_is_a_warning_and_writes_nothing(tmp_path: Path) -> None:
    file, output = tmp_path / "raw.onnx", tmp_path / "raw.so"
    onnx.save(model(), file)

    with pytest.raises(UnsupportedModelError, match="does not scale its input") as caught:
        fer.compile(file, output=output, batch_sizes=(1,), strict=True)

    assert_sentence(str(caught.value))
    assert list(tmp_path.iterdir()) == [file]


def test_a_warning_is_logged_once_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "raw.onnx"
    onnx.save(model(labels="a,b,c,d,e,f,g"), file)

    with caplog.at_level(logging.WARNING, "ferplus_tvm"):
        result = fer.compile(file, output=tmp_path / "raw.so", batch_sizes=(1,))

    (warning,) = result.warnings
    assert "raw pixels 0..255 are assumed" in warning
    assert result.manifest.warnings == (warning,)
    assert [record.message for record in caplog.records] == [f"{file}: {warning}"]
    assert result.manifest.labels == tuple("abcdefg") and "labels" in result.notes[0]


@pytest.mark.parametrize(
    ("stated", "says"),
    [({"channels": 1}, "channels=1 is stated"), ({"labels": "affectnet8"}, "names 8 classes")],
    ids=str,
)
def test_what_is_stated_has_to_be_the_file_s(
    stated: dict[str, object], says: str, tmp_path: Path
) -> None:
    file = tmp_path / "raw.onnx"
    onnx.save(model(), file)
    with pytest.raises(ModelShapeError, match=says):
        fer.compile(file, output=tmp_path / "raw.so", **stated)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"mean": 0.5, "std": 0.5}, "in 0..1 or in 0..255"),
        ({"channels": 2}, "1 for grey faces or 3"),
        ({"labels": "fer2014"}, "ferplus, fer2013"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused_at_once(stated: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fer.compile("no-such-model.onnx", **stated)  # type: ignore[arg-type]


def test_one_of_several_outputs_is_compiled(tmp_path: Path) -> None:
    made = model()
    hidden = onnx.helper.make_tensor_value_info(made.graph.node[-2].output[0], 1, None)
    made.graph.output.append(hidden)
    file = tmp_path / "two.onnx"
    onnx.save(made, file)
    with pytest.raises(ModelShapeError, match="2 outputs"):
        fer.compile(file, output=tmp_path / "two.so")
    imported = load_model(file, output=made.graph.output[0].name)
    assert imported.classes == 7
