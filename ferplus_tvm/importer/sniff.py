"""Say what a file is when it is not the ONNX model that somebody took it for."""

from __future__ import annotations

_FETCH = "get the file itself with `ferplus-tvm models fetch emotion-ferplus-8`"
_LFS_PREFIX = b"version https://git-lfs.github.com/spec/"
# (offset, bytes found there, what it is, the next step)
_SIGNATURES = (
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and pass the .onnx file inside"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it and pass the .onnx file inside"),
    (0, b"BZh", "a bzip2 archive", "unpack it and pass the .onnx file inside"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "unpack it and pass the .onnx file inside"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it and pass the .onnx file inside"),
    (257, b"ustar", "a tar archive", "unpack it and pass the .onnx file inside"),
    (0, b"\x89HDF", "an HDF5 (Keras) file", "export the network to ONNX first"),
    (4, b"TFL3", "a TensorFlow Lite file", "pass the ONNX export instead"),
    (0, b"\x7fELF", "a compiled library", "pass the ONNX model that it was compiled from"),
    (0, b"\x89PNG", "a PNG image", "pass the ONNX model"),
    (0, b"\xff\xd8\xff", "a JPEG image", "pass the ONNX model"),
)


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
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return f"is a web page, as a browser saves it in place of a download; {_FETCH}"
    if start.startswith((b'{"', b"{\n", b"[{")):
        return f"is JSON text, not an ONNX model; {_FETCH}"
    for offset, signature, what, advice in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return f"is {what}, not an ONNX model; {advice}"
    return None
