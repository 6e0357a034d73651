"""What is fuzzed: readers of bytes that may come from anywhere, and what they may do with them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from ferplus_tvm.artifact import manifest_json
from ferplus_tvm.errors import ArtifactDamagedError, InputError, ModelError
from ferplus_tvm.faces.onnx_tensor import read_tensor
from ferplus_tvm.faces.preprocess import preprocess
from ferplus_tvm.importer import load_model

CORPUS = Path(__file__).parent / "corpus"


def read_manifest(data: bytes) -> None:
    """Manifests, or the error of damage; what is read is written and read again as the same."""
    try:
        found = manifest_json.from_json(data)
    except ArtifactDamagedError:
        return
    assert manifest_json.from_json(manifest_json.to_json(found)) == found
    for each in found:
        assert all(isinstance(name, str) for name in (each.target, each.triple, each.gpu_arch))
        assert min(each.batch_sizes) >= 1
        assert all(tensor.nbytes >= 0 and tensor.offset >= 0 for tensor in each.tensors)
        for function in each.functions.values():
            assert all(isinstance(each.tensors[index].name, str) for index in function.weights)


def import_model(data: bytes) -> None:
    """A tidy graph, or the error of a model."""
    try:
        load_model(data)
    except ModelError:
        return


def read_picture(data: bytes) -> None:
    """A face, or the error of an input."""
    try:
        faces = preprocess(io.BytesIO(data))
    except InputError:
        return
    assert faces.shape == (1, 1, 64, 64) and faces.min() >= 0 and faces.max() <= 255


def read_onnx_tensor(data: bytes) -> None:
    """Numbers of the shape that is stated, or the error of an input."""
    try:
        found = read_tensor(data, "the tensor")
    except InputError:
        return
    assert found.dtype.kind in "iuf" and found.nbytes <= 8 * len(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": read_manifest,
    "importer": import_model,
    "picture": read_picture,
    "tensor": read_onnx_tensor,
}
