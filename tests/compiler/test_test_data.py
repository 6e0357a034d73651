"""Test data sets, made with onnxruntime, as verify and compile run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from typer.testing import CliRunner

import ferplus_tvm as fer
from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.cli import app
from ferplus_tvm.compiler.test_data import (
    TOLERANCE,
    Contract,
    beside,
    error_of,
    in_folder,
    unlike_pixels,
)
from ferplus_tvm.errors import InputError, UnsupportedModelError, VerificationError
from tests.artifacts import assert_sentence, rewrite
from tests.chains import Chain
from tests.network import faces

GREY = Contract((1, 64, 64), 8, RAW, 1e-4)
SCORES = np.linspace(-4, 8, 8, dtype=np.float32)[np.newaxis] / 3


def write_set(folder: Path, given: Any, expected: Any, name: str = "Input3") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array, tensor in (("input_0", given, name), ("output_0", expected, "scores")):
        content = numpy_helper.from_array(np.asarray(array), tensor).SerializeToString()
        (folder / f"{file}.pb").write_bytes(content)
    return folder


def scores_of(model: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.concatenate([session.run(None, {name: face[None]})[0] for face in x])


@pytest.fixture(scope="session")
def narrow_sets(narrow_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets of the narrow model: one face, five faces, and one face as the zoo may have it."""
    folder = tmp_path_factory.mktemp("sets")
    score = scores_of(narrow_model)
    for number, count in ((0, 1), (2, 5), (10, 1)):
        x = faces(count, seed=number)
        write_set(folder / f"test_data_set_{number}", x, score(x))
    return folder


# ----- verify


def test_a_good_library_passes_every_set(narrow_library: Path, narrow_sets: Path) -> None:
    result = fer.verify(narrow_library, test_data=narrow_sets)
    names = [each.name for each in result.test_data]
    assert names == ["test_data_set_0", "test_data_set_2", "test_data_set_10"]
    assert all(each.passed and each.tolerance == TOLERANCE for each in result.test_data)
    assert max(each.error for each in result.test_data) < 1e-4
    assert set(result.errors) == {1, 2}


def test_one_set_can_be_run_alone(narrow_library: Path, narrow_sets: Path) -> None:
    one = fer.verify(narrow_library, test_data=str(narrow_sets / "test_data_set_2"))
    assert [each.name for each in one.test_data] == ["test_data_set_2"]
    assert fer.verify(narrow_library).test_data == ()


def test_a_set_that_fails_is_named_and_the_others_are_reported(
    narrow_library: Path, narrow_sets: Path, narrow_model: Path, tmp_path: Path
) -> None:
    x = faces(2, seed=1)
    right = scores_of(narrow_model)(x)
    wrong = right.copy()
    wrong[1, 3] += 0.01 * np.abs(right).max()
    write_set(tmp_path / "test_data_set_0", x, right)
    write_set(tmp_path / "test_data_set_1", x, wrong)
    with pytest.raises(VerificationError) as caught:
        fer.verify(narrow_library, test_data=tmp_path)
    assert_sentence(
        str(caught.value), str(narrow_library), "1 of 2", "test_data_set_1 by 1.0e-02", "most 1e-03"
    )

    shown = CliRunner().invoke(app, ["verify", str(narrow_library), "--test-data", str(tmp_path)])
    rows = [line.split() for line in shown.stdout.splitlines() if "test_data_set" in line]
    assert [(row[0], row[-1]) for row in rows] == [
        ("test_data_set_0", "pass"),
        ("test_data_set_1", "fail"),
    ]
    assert rows[1][1:3] == ["1.0e-02", "1e-03"]
    assert isinstance(shown.exception, VerificationError)  # which `run` makes a status of 1

    printed = CliRunner().invoke(
        app, ["verify", str(narrow_library), "--test-data", str(tmp_path), "--json"]
    )
    answer = json.loads(printed.stdout)["test_data"]
    assert [each["passed"] for each in answer] == [True, False]
    assert answer[1]["error"] == pytest.approx(0.01, rel=1e-3)
    assert isinstance(printed.exception, VerificationError)


def test_inputs_are_in_the_range_of_the_models_file(
    narrow_library: Path, narrow_model: Path, tmp_path: Path
) -> None:
    """A library that scales raw pixels itself takes the file's values all the same."""
    scaling = Scaling((0.0, 1.0), (0.5,), (0.25,))
    library = rewrite(narrow_library, tmp_path / "x.so", scaling=scaling)
    x = faces(2)
    values = (x / 255 - 0.5) / 0.25
    write_set(tmp_path / "test_data_set_0", values, scores_of(narrow_model)(x))
    assert fer.verify(library, test_data=tmp_path).test_data[0].error < 1e-4


def test_the_tensor_of_a_set_is_predicted_as_the_set_says(
    narrow_library: Path, narrow_sets: Path
) -> None:
    folder = narrow_sets / "test_data_set_0"
    expected = fer.postprocess(numpy_helper.to_array(onnx.load_tensor(folder / "output_0.pb")))
    with fer.load(narrow_library) as engine:
        found = engine.predict(folder / "input_0.pb")
        assert found.ranking[0][0] == expected[0].ranking[0][0]
        np.testing.assert_allclose(found.scores, expected[0].scores, rtol=0, atol=1e-3)
        assert len(engine.predict_batch(narrow_sets / "test_data_set_2" / "input_0.pb")) == 5
    shown = CliRunner().invoke(
        app, ["predict", str(narrow_library), str(folder / "input_0.pb"), "--json"]
    )
    assert json.loads(shown.stdout)[0]["label"] == expected[0].label


# ----- reading


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8, np.int64])
def test_inputs_of_any_type_and_layout_are_the_same_faces(tmp_path: Path, kind: type) -> None:
    x = np.round(faces(3)).astype(kind)
    for layout in (x, x[:, 0], x.reshape(3, -1), np.moveaxis(x, 1, -1)):
        write_set(tmp_path / "test_data_set_0", layout, np.repeat(SCORES, 3, 0))
        (found,) = in_folder(tmp_path, GREY)
        np.testing.assert_array_equal(found.pixels, x)
        assert found.pixels.dtype == np.float32


def test_colour_channels_first_and_last_are_the_same_faces(tmp_path: Path) -> None:
    contract = Contract((3, 48, 48), 8, RAW, 1e-4)
    x = np.random.default_rng(0).uniform(0, 255, (1, 3, 48, 48)).astype(np.float32)
    for layout in (x, np.moveaxis(x, 1, -1)):
        (found,) = in_folder(
            write_set(tmp_path / "set", layout, SCORES[:, :, None, None]), contract
        )
        np.testing.assert_array_equal(found.pixels, x)


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (np.zeros((1, 1, 48, 48)), SCORES, "input_0.pb has the shape (1, 1, 48, 48): expected (N"),
        (np.zeros((1, 3, 64, 64)), SCORES, "(N, 1, 64, 64)"),
        (np.zeros((64, 64)), SCORES, "(N, 1, 64, 64)"),
        (np.zeros(()), SCORES, "(N, 1, 64, 64)"),
        (np.zeros((0, 1, 64, 64)), SCORES, "(N, 1, 64, 64)"),
        (faces(1), np.zeros((1, 7)), "output_0.pb (1, 7): expected one of shape (1, 8)"),
        (faces(2), SCORES, "expected one of shape (2, 8)"),
        (np.full((1, 1, 64, 64), np.inf), SCORES, "NaN or infinity"),
        (faces(1), SCORES * np.nan, "NaN or infinity"),
        (faces(1) > 100, SCORES, "truth values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sets_of_another_shape_or_kind_are_refused_in_a_sentence(
    tmp_path: Path, given: Any, expected: Any, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        in_folder(write_set(tmp_path / "test_data_set_3", given, expected), GREY)
    assert_sentence(str(caught.value), "test_data_set_3", said)


def test_folders_without_sets_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "in "), ("a.tar.gz", "is a file"), ("none", "does not exist")):
        with pytest.raises(InputError) as caught:
            in_folder(tmp_path / name, GREY)
        assert_sentence(str(caught.value), "no test data", said, "expected a folder")


def test_a_set_with_a_missing_or_a_second_tensor_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "test_data_set_0", faces(1), SCORES)
    (folder / "output_1.pb").write_bytes((folder / "output_0.pb").read_bytes())
    with pytest.raises(InputError, match="outputs of test_data_set_0 are"):
        in_folder(tmp_path, GREY)
    (folder / "output_1.pb").unlink()
    (folder / "output_0.pb").rename(folder / "output.pb")
    with pytest.raises(InputError, match="outputs of test_data_set_0 are none"):
        in_folder(tmp_path, GREY)
    (folder / "input_0.pb").unlink()
    with pytest.raises(InputError, match="test_data_set_0 has 0 inputs"):
        in_folder(tmp_path, GREY)


def test_the_output_that_is_the_scores_is_found_among_several(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "test_data_set_0", faces(1), np.zeros((1, 512), np.float32))
    content = numpy_helper.from_array(SCORES, "scores").SerializeToString()
    (folder / "output_1.pb").write_bytes(content)
    (found,) = in_folder(tmp_path, GREY)
    np.testing.assert_array_equal(found.outputs, SCORES)


def test_the_tolerance_is_that_of_the_numbers_that_were_computed_with(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "test_data_set_0", faces(1), SCORES)
    assert in_folder(folder, GREY)[0].tolerance == 1e-3
    assert in_folder(folder, Contract((1, 64, 64), 8, RAW, 3e-3))[0].tolerance == 3e-3
    write_set(folder, faces(1), SCORES.astype(np.float16).astype(np.float32))
    assert in_folder(folder, GREY)[0].tolerance == 1e-2


# ----- comparing


def softmax(scores: NDArray[Any]) -> NDArray[Any]:
    exponentials = np.exp(scores.astype(np.float64))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("tail", [lambda z: z, softmax, lambda z: np.log(softmax(z))])
def test_outputs_may_be_scores_probabilities_or_their_logarithms(tail: Any) -> None:
    scores = np.concatenate([SCORES, SCORES[:, ::-1]])
    expected = np.float64(np.float32(tail(scores)))
    assert error_of(scores, expected) < 1e-6
    off = scores.copy()
    off[1, 7] += 0.5
    assert error_of(off, expected) > 0.01


def test_scores_that_differ_by_a_constant_differ_unless_the_file_ends_in_a_softmax() -> None:
    assert error_of(SCORES + 1, np.float64(SCORES)) > 0.1
    assert error_of(SCORES + 1, softmax(SCORES)) < 1e-6


# ----- compile


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of one convolution, large pooling and a dense layer."""
    chain = Chain().sub(127.5).mul(1 / 127.5).conv("first", 4).relu("r").pool("p", (8, 8), (8, 8))
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    onnx.save(chain.flatten().dense("last").model(), path)
    return path


@pytest.fixture
def unpacked(tiny: Path, tmp_path: Path) -> Path:
    """A folder as an archive of the zoo has it: a model and two sets."""
    (tmp_path / "model.onnx").write_bytes(tiny.read_bytes())
    for number in (0, 1):
        x = faces(1, seed=number)
        write_set(tmp_path / f"test_data_set_{number}", x, scores_of(tiny)(x))
    return tmp_path


def test_compile_runs_the_sets_beside_the_model_and_says_so(unpacked: Path) -> None:
    arguments = ["compile", str(unpacked / "model.onnx"), "-o", str(unpacked / "a.so")]
    shown = CliRunner().invoke(app, [*arguments, "--batch", "1", "--labels", "ferplus"])
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("test data")]
    assert "2 sets passed" in line and "1e-03 allowed" in line


def test_compile_fails_if_a_set_fails(unpacked: Path) -> None:
    write_set(unpacked / "test_data_set_1", faces(1), SCORES)
    with pytest.raises(VerificationError) as caught:
        fer.compile(unpacked / "model.onnx", output=unpacked / "a.so", batch_sizes=(1,))
    assert_sentence(str(caught.value), "fails 1 of 2 test data sets", "test_data_set_1")
    assert not (unpacked / "a.so").exists()


def test_compile_warns_of_sets_that_it_cannot_run(unpacked: Path) -> None:
    write_set(unpacked / "test_data_set_0", np.zeros((1, 1, 48, 48)), SCORES)
    (unpacked / "test_data_set_1" / "input_0.pb").write_bytes(b"damaged")
    with pytest.raises(UnsupportedModelError, match="48, 48"):
        fer.compile(unpacked / "model.onnx", output=unpacked / "a.so", strict=True)
    result = fer.compile(
        unpacked / "model.onnx", output=unpacked / "a.so", batch_sizes=(1,), labels="ferplus"
    )
    assert len(result.warnings) == 2 and result.test_data == {}
    assert_sentence(result.warnings[0], "test data were not run", "(1, 1, 48, 48)")
    assert_sentence(result.warnings[1], "test data were not run", "is not an ONNX tensor")


def test_strict_refuses_a_scaling_that_the_sets_contradict(tmp_path: Path) -> None:
    chain = Chain().conv("first", 4).relu("r").pool("p", (8, 8), (8, 8)).flatten().dense("last")
    onnx.save(chain.model(), tmp_path / "model.onnx")
    write_set(tmp_path / "test_data_set_0", faces(1) / 255, SCORES)
    with pytest.raises(UnsupportedModelError, match=r"test_data_set_0 is of pixels in .* 0\.\.255"):
        fer.compile(tmp_path / "model.onnx", labels="ferplus", strict=True)


def test_sets_of_a_fetched_model_lie_in_a_folder_of_its_name(unpacked: Path) -> None:
    cache = unpacked / "cache"
    cache.mkdir()
    for name in ("emotion-ferplus-8", "emotion-ferplus-7"):
        (cache / f"{name}.onnx").write_bytes(b"")
    write_set(cache / "emotion-ferplus-8" / "test_data_set_0", faces(1), SCORES)
    sets, unusable = beside(cache / "emotion-ferplus-8.onnx", GREY)
    assert [each.name for each in sets] == ["test_data_set_0"] and unusable == []
    assert beside(cache / "emotion-ferplus-7.onnx", GREY) == ([], [])


def test_sets_beside_several_models_are_not_taken_for_one_of_them(unpacked: Path) -> None:
    assert len(beside(unpacked / "model.onnx", GREY)[0]) == 2
    (unpacked / "other.onnx").write_bytes(b"")
    sets, unusable = beside(unpacked / "model.onnx", GREY)
    assert sets == []
    assert_sentence(unusable[0], "several models", "--test-data")


def test_inputs_that_are_no_pixels_by_the_scaling_are_told(tmp_path: Path) -> None:
    unit = Contract((1, 64, 64), 8, Scaling((0.0, 1.0)), 1e-4)
    write_set(tmp_path / "test_data_set_0", faces(1) / 255, SCORES)
    assert_sentence(*unlike_pixels(in_folder(tmp_path, GREY)), "pixels in ", "input_range=")
    assert unlike_pixels(in_folder(tmp_path, unit)) == []
    write_set(tmp_path / "test_data_set_0", faces(1), SCORES)
    assert unlike_pixels(in_folder(tmp_path, GREY)) == []
    assert_sentence(*unlike_pixels(in_folder(tmp_path, unit)), "not in 0..255")
