"""Files that are no whole ONNX model end in one sentence that says what they are."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from ferplus_tvm.errors import ModelError, ModelFileError
from ferplus_tvm.importer import load_model
from tests.models import VARIANTS, external_data, make_weights, official

WEIGHTS = make_weights(width=64)
DATA = official(WEIGHTS).SerializeToString()
SEEDS = [DATA, *(VARIANTS[n](WEIGHTS).SerializeToString()
                 for n in ("official-2", "reshape-computed-9", "constants", "half"))]  # fmt: skip
LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:a2a2ba6a335a3b29c21acb6272f962bd3d47f84952aaffa03b60986e04efa61c
size 35040571
"""


def tar_file() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("model.onnx")
        info.size = len(DATA)
        archive.addfile(info, io.BytesIO(DATA))
    return buffer.getvalue()


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.onnx", DATA)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty.*ferplus-tvm models fetch emotion-ferplus-8"),
        (LFS, "Git LFS pointer.*git lfs pull.*ferplus-tvm models fetch emotion-ferplus-8"),
        (b"\n<!DOCTYPE html>\n<html>...", "web page.*ferplus-tvm models fetch"),
        (b"<HTML><body>404", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (gzip.compress(DATA), "gzip archive.*unpack"),
        (tar_file(), "tar archive.*unpack"),
        (zip_file(), "zip archive.*unpack"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "compiled library"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG image"),
        (DATA[: len(DATA) // 2], "breaks off or is damaged"),
        (DATA[:-10], "breaks off|cut short"),
        (b"not an onnx model at all", "not an ONNX model"),
        (bytes(1000), "not an ONNX model"),
        (b"\x08\x03", "not an ONNX model"),
    ],
)
def test_wrong_contents(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source, what in ((path, str(path)), (data, "given as bytes")):
        with pytest.raises(ModelFileError, match=f"(?s){message}") as caught:
            load_model(source)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"there is no file .*nowhere.onnx"):
        load_model(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelFileError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(ModelFileError, match=r"cannot be read|no file"):
        load_model("nul\0byte.onnx")


@pytest.mark.skipif(
    sys.platform == "win32" or getattr(os, "geteuid", lambda: 1)() == 0,
    reason="permissions do not stop this user",
)
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)
    path.chmod(0)
    with pytest.raises(ModelFileError, match=r"cannot be read.*permission"):
        load_model(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(DATA)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelFileError, match=r"Permission denied.*check its permissions"):
        load_model(path)


def test_a_source_of_the_wrong_type_is_a_programming_mistake() -> None:
    with pytest.raises(TypeError, match="ModelProto"):
        load_model(onnx.ModelProto())  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 31, 1 << 31, 1 << 31], [63], [-1]])
def test_claimed_sizes_are_checked_before_memory_is_taken(dims: list[int]) -> None:
    model = official(WEIGHTS)
    tensor = next(t for t in model.graph.initializer if t.name == "Parameter4")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    with pytest.raises(ModelFileError, match=r"tensor 'Parameter4'.*damaged"):
        load_model(model.SerializeToString())


def external(tmp_path: Path) -> tuple[Path, onnx.ModelProto]:
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    external_data(WEIGHTS, path)
    return path, onnx.load(path, load_external_data=False)


def rewrite(path: Path, model: onnx.ModelProto, key: str, text: str) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    entry = next(e for e in tensor.external_data if e.key == key)
    entry.value = text
    path.write_bytes(model.SerializeToString())


def test_external_data_needs_the_path(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    with pytest.raises(ModelFileError, match="pass the path"):
        load_model(path.read_bytes())


def test_external_data_missing(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    (path.parent / "model.onnx.data").unlink()
    with pytest.raises(ModelFileError, match=r"model.onnx.data.*put that file beside"):
        load_model(path)


def test_external_data_too_short(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    data = path.parent / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(ModelFileError, match=r"needs .* bytes at offset"):
        load_model(path)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/hosts", "a/../../secret", "C:\\secret", "..\\secret", ""]
)
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    path, model = external(tmp_path)
    (tmp_path / "secret").write_bytes((path.parent / "model.onnx.data").read_bytes())
    rewrite(path, model, "location", location)
    with pytest.raises(ModelFileError, match="only files in the model's own folder"):
        load_model(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_external_data_behind_a_link_out_of_the_folder(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    data = path.parent / "model.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match="only files in the model's own folder"):
        load_model(path)


@pytest.mark.parametrize(
    ("key", "text"), [("offset", "x"), ("offset", "-4"), ("length", "8"), ("length", "-1")]
)
def test_external_data_with_a_wrong_place(key: str, text: str, tmp_path: Path) -> None:
    path, model = external(tmp_path)
    rewrite(path, model, key, text)
    with pytest.raises(ModelFileError, match=r"model.onnx.data"):
        load_model(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_never_ends_in_anything_but_a_model_error(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    try:
        load_model(bytes(damaged))
    except ModelError as error:
        assert "\n" not in str(error)
