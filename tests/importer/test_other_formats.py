"""Files of other formats are named for what they are, with the next step."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import json_format, text_format
from onnx import TensorProto, helper, numpy_helper

from ferplus_tvm.errors import ModelFileError
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.sniff import recognise

MODEL = helper.make_model(
    helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 64, 64])],
    ),
    ir_version=8,
    opset_imports=[helper.make_opsetid("", 17)],
)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"contents")
    return buffer.getvalue()


def arrays(*, several: bool) -> bytes:
    buffer = io.BytesIO()
    if several:
        np.savez(buffer, weights=np.ones(3))
    else:
        np.save(buffer, np.ones(3))
    return buffer.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def field(number: int, contents: bytes) -> bytes:
    """Write one field of a protobuf message."""

    def varint(value: int) -> bytes:
        low = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
        return bytes([each | 128 for each in low[:-1]] + low[-1:])

    return varint(number << 3 | 2) + varint(len(contents)) + contents


NODE = field(1, b"input") + field(2, b"Placeholder") + field(5, b"dtype")
CASES: dict[str, tuple[bytes, str]] = {
    "pytorch": (zipped("archive/data.pkl", "archive/data/0"), r"\.pth.*torch\.onnx\.export"),
    "pytorch-old": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", r"PyTorch.*torch\.onnx"
    ),
    "torchscript": (zipped("m/data.pkl", "m/code/__torch__.py"), r"TorchScript.*torch\.onnx"),
    "pytorch-exported": (zipped("m/archive_format", "m/models/model.json"), r"\.pt2.*torch"),
    "keras": (
        zipped("metadata.json", "config.json", "model.weights.h5"), r"\.keras.*model\.export"
    ),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), r"\.h5.*model\.export"),
    "pickle": (pickle.dumps({"weights": [1.0]}), "pickle.*export"),
    "npz": (arrays(several=True), r"\.npz.*weights without a network"),
    "npy": (arrays(several=False), r"\.npy.*weights without a network"),
    "safetensors": (safetensors(), "safetensors.*weights without a network"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="fer" version="11">', r"OpenVINO.*\.xml"),
    "openvino-bare": (b'<net name="fer" version="10">\n', r"OpenVINO.*\.xml"),
    "onnx-textproto": (text_format.MessageToString(MODEL).encode(), 'text protobuf.*"textproto"'),
    "onnx-textproto-with-comments": (
        b"# a model\n\n  # of mine\n" + text_format.MessageToString(MODEL).encode(), "textproto"
    ),
    "onnx-text": (onnx.printer.to_text(MODEL).encode(), 'text syntax.*"onnxtxt"'),
    "onnx-json": (json_format.MessageToJson(MODEL).encode(), 'JSON.*"json"'),
    "json": (b' [\n {"a": 1}]', "JSON"),
    "caffe-text": (b'name: "FER"\nlayer {\n  name: "conv1"\n}\n', r"Caffe.*\.prototxt"),
    "caffe": (field(1, b"FER") + field(100, b"layer"), r"\.caffemodel.*\.prototxt"),
    "tensorflow-text": (b'node {\n  name: "x"\n  op: "Placeholder"\n}\n', "TensorFlow.*tf2onnx"),
    "saved-model": (
        b"\x08\x01" + field(2, b"........serving_default"), "SavedModel.*--saved-model"
    ),
    "frozen-graph": (field(1, NODE) * 2, "frozen TensorFlow.*--graphdef"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite.*--tflite"),
    "coreml": (b"\x08\x04" + field(2, b"....") + field(500, b"network"), r"\.mlmodel"),
    "tensor": (
        numpy_helper.from_array(np.ones((1, 1, 64, 64), np.float32), "x").SerializeToString(),
        "single ONNX tensor.*test_data_set_0",
    ),
    "tensorrt": (b"ftrt" + bytes(64), "TensorRT engine"),
    "ncnn": (b"7767517\n75 83\nInput data 0 1 data\n", r"ncnn.*\.param"),
    "windows-library": (b"MZ\x90\x00" + bytes(64), "Windows.*compiled from"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(64), "7z archive.*unpack"),
    "damaged-zip": (b"PK\x03\x04" + bytes(64), "zip archive.*unpack"),
    "text": (b"The model is on the other server.\n", "is text, not"),
    "program": (b"#!/usr/bin/env python\nimport torch\n", "is text, not"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_named_with_the_next_step(name: str, tmp_path: Path) -> None:
    data, message = CASES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source, what in ((path, str(path)), (data, "given as bytes")):
        with pytest.raises(ModelFileError, match=f"(?i){message}") as caught:
            load_model(source)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "ONNX" in str(caught.value) or "onnx" in str(caught.value)


def test_the_format_of_onnxruntime(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.log_severity_level = 4
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        MODEL.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with pytest.raises(ModelFileError, match=r"onnxruntime's own \.ort format.*made from"):
        load_model(tmp_path / "model.ort")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fer.bin", "OpenVINO"),
        ("fer.mnn", "MNN"),
        ("fer.engine", "TensorRT"),
        ("fer.pdmodel", "paddle2onnx"),
        ("fer.onnx.data", r"pass the \.onnx file"),
        ("fer.onnx", "not an ONNX model"),
    ],
)
def test_formats_without_a_signature_are_named_by_their_suffix(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(np.linspace(1, 2, 500, dtype=np.float32).tobytes())
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / name)


def test_a_model_under_any_name_is_read(tmp_path: Path) -> None:
    bundled = Path(__file__).parents[2] / "ferplus_tvm/zoo/data/ferplus-bundled.onnx"
    (tmp_path / "fer.bin").symlink_to(bundled)
    assert load_model(tmp_path / "fer.bin").classes == 8


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "fer.mlpackage").mkdir()
    with pytest.raises(ModelFileError, match="is a CoreML model"):
        load_model(tmp_path / "fer.mlpackage")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ModelFileError, match=r"SavedModel.*--saved-model .*saved --output"):
        load_model(tmp_path / "saved")
    (tmp_path / "FER.onnx").write_bytes(MODEL.SerializeToString())
    with pytest.raises(ModelFileError, match=r"is a folder: .* such as 'FER.onnx'"):
        load_model(tmp_path)


@pytest.mark.parametrize("producer", ["ORTModule", "TFL3 converter", "pytorch", "{}", "ustar"])
def test_a_model_of_any_producer_is_not_taken_for_something_else(producer: str) -> None:
    model = onnx.ModelProto.FromString(MODEL.SerializeToString())
    model.producer_name = producer
    assert recognise(model.SerializeToString()) is None


def test_a_text_of_comments_takes_no_time() -> None:
    """A pattern with nested repeats would take for ever here."""
    with pytest.raises(ModelFileError, match="is text"):
        load_model(b"# " * 2000 + b"x")
