"""Files of one ONNX tensor, compared with what onnx itself reads and writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper

import ferplus_tvm as fer
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces import onnx_tensor
from ferplus_tvm.faces.onnx_tensor import read_tensor, read_tensor_file
from tests.network import faces

TYPES = ["f2", "f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]
ANY = st.sampled_from(TYPES).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0))
)


def typed(array: np.ndarray) -> bytes:
    """Store an array in the fields of its type, not as raw bytes."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor("t", kind, array.shape, array.ravel()).SerializeToString()


def raw(array: np.ndarray, name: str = "Input3") -> bytes:
    return numpy_helper.from_array(array, name).SerializeToString()


@given(ANY, st.sampled_from([raw, typed]))
def test_what_onnx_writes_is_read_as_onnx_reads_it(array: np.ndarray, write: Any) -> None:
    found = read_tensor(write(array), "t")
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@given(st.data())
def test_changed_bytes_are_refused_or_read_as_onnx_reads_them(data: st.DataObject) -> None:
    array = data.draw(ANY)
    content = bytearray(data.draw(st.sampled_from([raw, typed]))(array))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) - 2, len(content)))]
    compare_with_onnx(bytes(content))


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_read_as_onnx_reads_them(content: bytes) -> None:
    compare_with_onnx(content)


def compare_with_onnx(content: bytes) -> None:
    try:
        found = read_tensor(content, "the file")
    except InputError as error:
        assert str(error).startswith("the file ")
        return
    expected = numpy_helper.to_array(TensorProto.FromString(content))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_numbers_in_several_pieces_are_one_tensor() -> None:
    pieces = onnx.helper.make_tensor("", TensorProto.FLOAT, [1], [2.0]).SerializeToString()
    more = TensorProto(dims=[2], float_data=[3.0]).SerializeToString()
    np.testing.assert_array_equal(read_tensor(pieces + more, "t"), [[2.0, 3.0]])


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (TensorProto(dims=[1], data_type=TensorProto.STRING, string_data=[b"a"]), "holds strings"),
        (TensorProto(dims=[1], data_type=TensorProto.BOOL, raw_data=b"\1"), "holds truth values"),
        (TensorProto(dims=[1], data_type=TensorProto.BFLOAT16, raw_data=b"\0\0"), "the type 16"),
        (TensorProto(dims=[2], data_type=TensorProto.FLOAT, data_location=1), "another file"),
        (TensorProto(dims=[2], data_type=TensorProto.FLOAT, raw_data=b"abcd"), "1 numbers"),
        (TensorProto(dims=[1], data_type=TensorProto.FLOAT, raw_data=b"abc"), "within a number"),
        (TensorProto(dims=[1], data_type=TensorProto.FLOAT, double_data=[1]), "another type"),
        (TensorProto(dims=[1], data_type=TensorProto.UINT8, int32_data=[256]), "no uint8"),
        (TensorProto(dims=[-1], data_type=TensorProto.FLOAT), "states the shape"),
        (TensorProto(dims=[1] * 9, data_type=TensorProto.FLOAT, float_data=[1]), "the shape"),
        (TensorProto(dims=[1], raw_data=b"abcd"), "states no type"),
        (onnx.ModelProto(ir_version=3, producer_name="ai.cntk"), "not an ONNX tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_tensor_of_numbers_is_refused_in_a_sentence(tensor: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_tensor(tensor.SerializeToString(), "x.pb")
    assert str(caught.value).startswith("x.pb ")
    assert "expected" in str(caught.value)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(onnx_tensor, "LARGEST", 1000)
    (tmp_path / "x.pb").write_bytes(raw(np.zeros(300, np.float32)))
    with pytest.raises(InputError, match="more than 1000 bytes"):
        read_tensor_file(tmp_path / "x.pb", "x.pb")


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    for path in (tmp_path / "none.pb", tmp_path, "a\0b.pb"):
        with pytest.raises(InputError, match="cannot be read"):
            read_tensor_file(path, "x.pb")


# ----- as a source of faces


def test_a_tensor_is_the_faces_that_it_holds(tmp_path) -> None:
    given = faces(3)
    (tmp_path / "input_0.pb").write_bytes(raw(given))
    for source in (tmp_path / "input_0.pb", str(tmp_path / "input_0.pb"), raw(given)):
        np.testing.assert_array_equal(fer.preprocess(source), given)
    channels_last = np.moveaxis(given, 1, -1)
    np.testing.assert_array_equal(fer.preprocess(raw(channels_last)), given)


def test_a_tensor_of_colour_is_read_as_its_pictures_are() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3)).astype(np.float32)
    expected = fer.preprocess(colour)
    np.testing.assert_array_equal(fer.preprocess(raw(np.moveaxis(colour, -1, 1))), expected)


def test_a_tensor_that_looks_normalised_is_refused_as_an_array_is(tmp_path) -> None:
    (tmp_path / "input_0.pb").write_bytes(raw(faces(1) / 255))
    with pytest.raises(InputError, match="value_range"):
        fer.preprocess(tmp_path / "input_0.pb")
    found = fer.preprocess(tmp_path / "input_0.pb", value_range=(0, 1))
    np.testing.assert_allclose(found, faces(1), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 8), (64, 64), (1, 2, 64, 64), ()], ids=str)
def test_a_tensor_that_holds_no_faces_is_refused(tmp_path, shape: tuple[int, ...]) -> None:
    (tmp_path / "output_0.pb").write_bytes(raw(np.full(shape, 7, np.float32)))
    with pytest.raises(InputError, match=r"output_0\.pb' holds a tensor of the shape"):
        fer.preprocess(tmp_path / "output_0.pb")


def test_a_file_of_another_kind_is_no_tensor(tmp_path) -> None:
    (tmp_path / "frozen.pb").write_bytes(b"\x0a\x05graph")
    with pytest.raises(InputError, match=r"frozen\.pb' is not an ONNX tensor"):
        fer.preprocess(tmp_path / "frozen.pb")


def test_the_runtime_reads_tensors_without_onnx(run_python, tmp_path) -> None:
    (tmp_path / "x.pb").write_bytes(raw(faces(1)))
    code = "import sys, ferplus_tvm as fer; print(fer.preprocess(sys.argv[1]).shape)"
    code += "; assert 'onnx' not in sys.modules and 'google' not in sys.modules"
    assert run_python(code, tmp_path / "x.pb") == "(1, 1, 64, 64)\n"
