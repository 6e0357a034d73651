"""The face detector as an option of compiling, and its reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.artifact.detector import Detector
from ferplus_tvm.cli import app
from ferplus_tvm.compiler import general_reference
from ferplus_tvm.compiler.detector import SIZES, sizes_of
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.errors import ModelShapeError, TargetError, UnsupportedModelError
from ferplus_tvm.importer.detector import load_detector
from ferplus_tvm.zoo import DETECTOR
from ferplus_tvm.zoo.registry import local_path
from tests.artifacts import assert_sentence


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with its weights and its input in float64."""
    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales and any(tensor.dims):
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def test_the_reference_is_what_onnx_itself_computes() -> None:
    detector = load_detector(local_path(DETECTOR))
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 64)).astype(np.float64)

    made = general_reference.outputs(detector.sized(96, 64), x)

    model = in_float64(detector.sized(96, 64))
    wanted = ReferenceEvaluator(model).run(None, {"input": x})
    names = [output.name for output in model.graph.output]
    assert len(names) == 12
    for name, array in zip(names, wanted, strict=True):
        np.testing.assert_allclose(made[name], array, rtol=0, atol=1e-12, err_msg=name)


def test_another_operator_has_no_reference() -> None:
    detector = load_detector(local_path(DETECTOR))
    model = detector.sized(32, 32)
    model.graph.node[1].op_type = "Tanh"
    with pytest.raises(UnsupportedModelError, match="no Tanh"):
        general_reference.outputs(model, np.zeros((1, 3, 32, 32)))


def test_a_model_that_is_no_yunet_is_refused(narrow_model: Path) -> None:
    with pytest.raises(ModelShapeError) as caught:
        load_detector(narrow_model)
    assert_sentence(str(caught.value), "cls_8", "Plus692_Output_0")


def test_sizes_are_ordered_and_checked() -> None:
    assert sizes_of(False) == ()
    assert sizes_of(True) == SIZES
    assert sizes_of([(640, 640), (64, 96), (96, 64), (64, 96)]) == ((64, 96), (96, 64), (640, 640))
    wrong: Any
    for wrong in ([], [(100, 64)], [(0, 32)], [(32, 8192)]):
        with pytest.raises(ValueError, match="detector"):
            sizes_of(wrong)
    for wrong in ([640], "640x640", [(64.5, 64)], 640, None, [(64, 64, 3)]):
        with pytest.raises(TypeError) as caught:
            sizes_of(wrong)
        assert_sentence(str(caught.value), "(height, width)")


def test_gpus_alone_are_refused(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": "bundled", "output": tmp_path / "x.so", "batch_sizes": [1]}
    with pytest.raises(TargetError) as caught:
        CompileOptions.of(**given, target="cuda/sm_90", detector=True)
    assert_sentence(str(caught.value), "CPUs only", "leave the detector out")
    assert CompileOptions.of(**given, target="cuda/sm_90", detector=False).detector == ()


def test_the_command_line_refuses_gpus_alone(tmp_path: Path) -> None:
    given = ["--target", "cuda/sm_90", "--detector", "-o", str(tmp_path / "x.so")]
    result = CliRunner().invoke(app, ["compile", *given])

    assert isinstance(result.exception, TargetError)
    assert "CPUs only" in str(result.exception)


def test_the_weights_lie_once_for_all_sizes(detector_library: Path, narrow_library: Path) -> None:
    manifest = fer.read_manifest(detector_library)
    detector = manifest.detector
    assert isinstance(detector, Detector)
    small, large = detector.functions
    assert sorted(small.weights) == sorted(large.weights)
    own = [manifest.tensors[index] for index in small.weights]
    # The weights of the network, as its file has them: 53 121 numbers with shapes and scales.
    assert sum(tensor.nbytes for tensor in own) == 4 * 53104
    # Nothing else of the library is touched.
    plain = fer.read_manifest(narrow_library)
    others = [each for each in manifest.tensors if each not in own]
    assert [replace(each, offset=0) for each in others] == [
        replace(each, offset=0) for each in plain.tensors if each.name in {o.name for o in others}
    ]


def test_info_names_the_detector_and_its_holders(detector_library: Path) -> None:
    shown = CliRunner().invoke(app, ["info", str(detector_library)]).stdout

    assert "face_detection_yunet_2023mar for pictures of 320x320, 640x640" in shown
    assert DETECTOR.sha256 in shown
    assert "Shiqi Yu" in shown and "Shenzhen Institute" in shown


def test_info_says_that_there_is_none_and_how_to_have_one(narrow_library: Path) -> None:
    shown = CliRunner().invoke(app, ["info", str(narrow_library)]).stdout

    (line,) = [line for line in shown.splitlines() if line.startswith("detector")]
    assert "none" in line and "--detector" in line


def test_verify_shows_each_size(detector_library: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(detector_library)])

    assert result.exit_code == 0
    assert "detector 320x320" in result.stdout and "detector 640x640" in result.stdout


@pytest.mark.skipif(
    not targets.resolve("x86-64-v3").runs_here, reason="this CPU does not run x86-64-v3"
)
def test_a_library_for_several_targets_has_a_detector_for_each(
    short_model: Path, tmp_path: Path
) -> None:
    made = fer.compile(
        short_model,
        target="x86-64-v2,x86-64-v3",
        output=tmp_path / "fleet.so",
        batch_sizes=(1,),
        labels=[f"class {number}" for number in range(8)],
        detector=[(64, 96)],
    )

    detectors = [manifest.detector for manifest in made.manifests]
    assert all(detector is not None and detector.sizes == ((64, 96),) for detector in detectors)
    functions = [detector.functions[0] for detector in detectors if detector is not None]
    assert functions[0].weights == functions[1].weights
    assert all((function.check.error or 1) < 2e-5 for function in functions)


def test_the_command_line_takes_sizes_as_width_x_height(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def stop(**wanted: Any) -> None:
        asked.update(wanted)
        raise RuntimeError

    monkeypatch.setattr(fer, "compile", stop)
    given = ["compile", "-o", str(tmp_path / "x.so")]
    sizes = ["--detector-size", "640x480", "--detector-size", "1280X1280"]
    shown = CliRunner().invoke(app, [*given, *sizes])

    assert asked["detector"] == [(480, 640), (1280, 1280)]
    assert "640x480, 1280x1280" in shown.stdout
    for wrong, said in (
        ("640", "width x height"),
        ("480*640", "width x height"),
        ("640x500", "the height 500 and the width 640"),
        ("8192x640", "32..4096"),
    ):
        refused = CliRunner().invoke(app, [*given, "--detector-size", wrong])
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.replace("│", " ").split())
