"""Say what a file is when it is not the ONNX model that somebody took it for."""

from __future__ import annotations

import io
import re
import zipfile

_FETCH = "get the file itself with `ferplus-tvm models fetch emotion-ferplus-8`"
_UNPACK = "unpack it and pass the .onnx file inside"
_PASS = "pass the ONNX model"
_ORIGIN = "pass the ONNX model that it was made from"
_TORCH = "load it in PyTorch and export the network with torch.onnx.export"
_KERAS = 'load it in Keras and export it with model.export("model.onnx", format="onnx")'
_WEIGHTS = "it holds weights without a network, so load them into theirs and export that to ONNX"
_LFS_PREFIX = b"version https://git-lfs.github.com/spec/"
# (offset, bytes found there, what it is, the next step)
_SIGNATURES = (
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a", "a rar archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (2, b"\0\0ORTM", "a model in onnxruntime's own .ort format", _ORIGIN),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes (.h5)", _KERAS),
    (2, b"\0\0TFL3", "a TensorFlow Lite file",
     "convert it with `python -m tf2onnx.convert --tflite model.tflite --output model.onnx`"),
    (0, b"ftrt", "a TensorRT engine", _ORIGIN),
    (0, b"7767517\n", "an ncnn network (.param)", _ORIGIN),
    (0, b"RKNN", "an RKNN model", _ORIGIN),
    (0, b"GGUF", "a GGUF file", _WEIGHTS),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", _WEIGHTS),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file of the old kind", _TORCH),
    (0, b"\x7fELF", "a compiled library", "pass the ONNX model that it was compiled from"),
    (0, b"MZ", "a Windows program or library", "pass the ONNX model that it was compiled from"),
    (0, b"\xcf\xfa\xed\xfe", "a compiled library", "pass the ONNX model that it was compiled from"),
    (0, b"\x89PNG", "a PNG image", _PASS),
    (0, b"\xff\xd8\xff", "a JPEG image", _PASS),
    (0, b"GIF8", "a GIF image", _PASS),
    (0, b"RIFF", "a WebP image or another RIFF file", _PASS),
    (0, b"%PDF", "a PDF document", _PASS),
)  # fmt: skip
# (what the beginning of a text, without comments, matches, what it is, the next step)
_TEXTS = (
    (rb"<net[\s>]|<\?xml[^>]*>\s*<net[\s>]", "a network of OpenVINO (.xml)", _ORIGIN),
    (rb"<!doctype|<html|<head|<\?xml", "a web page, as a browser saves it in place of a download",
     _FETCH),
    (rb'\{\s*"(irversion|opsetimport|producername)"', "an ONNX model written as JSON",
     'convert it with `onnx.save(onnx.load(PATH, "json"), "model.onnx")`'),
    (rb"\{|\[\s*[\[{]", "JSON text", _FETCH),
    (rb"<\s*(ir_version|opset_import)", "an ONNX model written in onnx's text syntax",
     'convert it with `onnx.save(onnx.load(PATH, "onnxtxt"), "model.onnx")`'),
    (rb"(ir_version|producer_name|opset_import|graph)\s*[:{]",
     "an ONNX model written as a text protobuf",
     'convert it with `onnx.save(onnx.load(PATH, "textproto"), "model.onnx")`'),
    (rb"(name:[^\n]*\s+)?(layers?\s*\{|input(_dim|_shape)?\s*[:{])",
     "a Caffe network (.prototxt)", "convert it, with its weights, to ONNX first"),
    (rb"(node\s*\{|saved_model_schema_version|meta_graphs)",
     "a TensorFlow graph as a text protobuf", "convert the SavedModel with tf2onnx"),
)  # fmt: skip
# Formats without a signature, by the suffix of the file's name.
_SUFFIXES = {
    ".bin": ("weights, as OpenVINO and ncnn keep them beside a network", _ORIGIN),
    ".caffemodel": ("the weights of a Caffe network", "convert them, with the network, to ONNX"),
    ".data": ("weights, as ONNX models keep them in a file beside", "pass the .onnx file itself"),
    ".engine": ("a TensorRT engine", _ORIGIN),
    ".mnn": ("an MNN model", _ORIGIN),
    ".pdiparams": ("weights of PaddlePaddle", "convert the model with paddle2onnx"),
    ".pdmodel": ("a PaddlePaddle model", "convert it with paddle2onnx"),
    ".plan": ("a TensorRT engine", _ORIGIN),
    ".trt": ("a TensorRT engine", _ORIGIN),
    ".weights": ("a file of weights", _WEIGHTS),
}


def recognise(data: bytes) -> str | None:
    """Return what ``data`` is and what to do next, or None if it may be an ONNX model.

    An ONNX file has no signature of its own (it is a bare protobuf message), so only things
    that are certainly something else are recognised.
    """
    if not data:
        return f"is empty; {_FETCH}"
    if data.startswith(_LFS_PREFIX):
        return (
            "is a Git LFS pointer, a few lines of text that stand for the model; run "
            f"`git lfs pull` in that clone, or {_FETCH}"
        )
    for offset, signature, what, advice in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return _sentence(what, advice)
    if data.startswith(b"PK\x03\x04"):
        return _sentence(*_zip_kind(data))
    header = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and 2 <= header <= len(data) - 8:
        return _sentence("a safetensors file", _WEIGHTS)
    if data[0] == 0x80 and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _sentence("a Python pickle", "load it where it was made and export the network")
    return _text_kind(data)


def recognise_suffix(suffix: str) -> str | None:
    """Return what a file of this suffix is that is certainly no ONNX model; None if unknown."""
    found = _SUFFIXES.get(suffix.lower())
    return _sentence(*found) if found else None


def _sentence(what: str, advice: str) -> str:
    return f"is {what}; {advice}" if "ONNX" in what else f"is {what}, not an ONNX model; {advice}"


def _zip_kind(data: bytes) -> tuple[str, str]:
    """Tell the formats apart that are zip archives, by the names of their members."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    # zipfile raises many things for damaged archives, and so few words are lost then.
    except Exception:
        names = []
    endings = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in endings and any("/code/" in name for name in names):
        return "a TorchScript file", _TORCH
    if "data.pkl" in endings:
        return "a PyTorch checkpoint (.pth)", _TORCH
    if "serialized_exported_program.json" in endings or "archive_format" in endings:
        return "an exported program of PyTorch (.pt2)", _TORCH
    if {"config.json", "metadata.json"} <= set(names):
        return "a Keras model (.keras)", _KERAS
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", _WEIGHTS
    return "a zip archive", _UNPACK


def _text_kind(data: bytes) -> str | None:
    """Tell what a text is; None if ``data`` is no text."""
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = [line for line in start.splitlines() if line.strip() and line.lstrip()[:1] != b"#"]
    words = b"\n".join(lines).lstrip()
    for pattern, what, advice in _TEXTS:
        if re.match(pattern, words, re.IGNORECASE):
            return _sentence(what, advice)
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start) and len(start) >= 4:
        try:
            start[:512].decode()
        except UnicodeDecodeError as error:
            if error.start < 508:
                return None
        return _sentence("text", _FETCH)
    return None
