"""What ``dump`` writes: a file a phase, true to what was compiled, and after a failure too."""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx.reference import ReferenceEvaluator

import ferplus_tvm as fer
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.compiler import pipeline
from ferplus_tvm.errors import (
    CompileError,
    CudaCompilerError,
    LinkerError,
    UnsupportedModelError,
)
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.relax import to_relax
from ferplus_tvm.toolchain import cubin, link
from tests.artifacts import assert_sentence
from tests.chains import Chain, faces
from tests.importer.support import run

OF_MODEL = ["01-tidy.onnx", "01-tidy.txt", "02-relax.py"]
OF_CPU = ["03-lowered.py", "04-tensorir.py", "05-assembly.s"]
OF_GPU = ["03-lowered.py", "04-tensorir.py", "05-kernels.cu"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def dumped(short_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compilation for this machine; the library lies beside it."""
    folder = tmp_path_factory.mktemp("dumped") / "dump"
    fer.compile(short_model, output=folder.with_suffix(".so"), batch_sizes=(1, 2), dump=folder)
    return folder


def test_there_is_a_file_for_each_phase(dumped: Path) -> None:
    assert names(dumped) == OF_MODEL + OF_CPU


def test_the_tidy_model_computes_the_scores_of_the_one_compiled(
    dumped: Path, short_model: Path
) -> None:
    tidy = onnx.load(dumped / "01-tidy.onnx")
    onnx.checker.check_model(tidy)
    x = faces(3)
    expected = run(onnx.load(short_model), x)
    within = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(run(tidy, x), expected, rtol=0, atol=within)
    (found,) = ReferenceEvaluator(tidy).run(None, {tidy.graph.input[0].name: x})
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)


def test_the_tidy_text_names_every_operator_and_holds_no_weights(
    dumped: Path, short_model: Path
) -> None:
    text = (dumped / "01-tidy.txt").read_text()
    graph = load_model(short_model).proto.graph
    for node in graph.node:
        assert re.search(rf"\[{node.name}\] {node.output[0]} = {node.op_type}\b", text)
    assert "float[32,16,3,3]" in text
    assert len(text) < 5000  # the weights alone are 70,000 numbers


def test_relax_as_imported_is_read_back_by_tvm(dumped: Path, short_model: Path) -> None:
    module = to_relax(load_model(short_model).proto).module
    read = tvm.script.from_source((dumped / "02-relax.py").read_text())
    tvm.ir.assert_structural_equal(read, module, map_free_vars=True)


def test_the_kernels_that_are_called_and_defined_are_those_of_the_manifest(dumped: Path) -> None:
    manifest = read_manifest(dumped.with_suffix(".so"))
    calls = (dumped / "03-lowered.py").read_text()
    kernels = {
        node.name
        for node in ast.walk(ast.parse((dumped / "04-tensorir.py").read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert set(re.findall(r"call_tir\((\w+)", calls)) == kernels
    for kernel in manifest.kernels:
        # A symbol may say more than the name, such as the halo that it writes.
        assert any(symbol.startswith(kernel.kernel) for symbol in kernels)
    for function in manifest.functions.values():
        assert f"def {function.name}(" in calls


def test_the_library_is_the_same_as_without(
    dumped: Path, short_model: Path, tmp_path: Path
) -> None:
    plain = fer.compile(short_model, output=tmp_path / "m.so", batch_sizes=(1, 2)).path
    assert plain.read_bytes() == dumped.with_suffix(".so").read_bytes()


@pytest.fixture
def no_linker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have linking fail, whatever this machine has."""
    monkeypatch.setattr(link, "find_linker", lambda triple: None)


@pytest.mark.parametrize(
    ("target", "has", "lacks"),
    [
        ("x86-64-v2", r"mulps\s+%?xmm", r"[yz]mm"),
        ("x86-64-v3", r"vfmadd\w+ps\s.*ymm", r"zmm"),
        ("x86-64-v4", r"vfmadd\w+ps\s.*zmm", r"fmla"),
        ("aarch64", r"fmla\s+v\d+\.4s", r"[xyz]mm"),
    ],
)
def test_the_assembly_is_there_without_a_linker_and_has_the_targets_vectors(
    short_model: Path, tmp_path: Path, no_linker: None, target: str, has: str, lacks: str
) -> None:
    folder = tmp_path / "dump"
    with pytest.raises(LinkerError):
        fer.compile(short_model, target, tmp_path / "m.so", [1], dump=folder)
    assert names(folder) == OF_MODEL + OF_CPU
    text = (folder / "05-assembly.s").read_text()
    assert re.search(has, text) and not re.search(lacks, text)
    assert "conv3x3_64x64_1to16" in text


def test_each_of_several_targets_has_a_folder(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.export, "link_image", lambda *_: b"\x7fELF")
    monkeypatch.setattr(pipeline, "_verified", lambda *_: None)
    folder = tmp_path / "dump"
    fer.compile(short_model, "x86-64-v2,x86-64-v3", tmp_path / "m.so", [1], dump=folder)
    assert names(folder) == [*OF_MODEL, "x86-64-v2", "x86-64-v3"]
    for target, register in (("x86-64-v2", "xmm"), ("x86-64-v3", "ymm")):
        assert names(folder / target) == OF_CPU
        assert register in (folder / target / "05-assembly.s").read_text()


def test_a_gpus_kernels_are_dumped_as_the_cuda_compiler_gets_them(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def fails(source: str, arch: str) -> bytes:
        given.append(source)
        raise CudaCompilerError("made up")

    monkeypatch.setattr(cubin, "require_compiler", lambda: fails)
    folder = tmp_path / "dump"
    with pytest.raises(CudaCompilerError):
        fer.compile(short_model, "cuda/sm_90", tmp_path / "m.so", [1], dump=folder)
    assert names(folder) == OF_MODEL + OF_GPU
    text = (folder / "05-kernels.cu").read_text()
    assert [text] == given and 'extern "C" __global__' in text


def test_two_gpus_have_folders_that_any_file_system_takes(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.export, "link_image", lambda *_: b"\x7fELF")
    monkeypatch.setattr(pipeline, "_verified", lambda *_: None)
    folder = tmp_path / "dump"
    fer.compile(short_model, "cuda/sm_80,cuda/sm_90", tmp_path / "m.so", [1], dump=folder)
    assert names(folder) == [*OF_MODEL, "cuda-sm_80", "cuda-sm_90"]
    assert names(folder / "cuda-sm_90") == OF_GPU


def test_what_came_before_a_failure_is_there_and_nothing_of_an_earlier_dump(
    dumped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dump"
    shutil.copytree(dumped, folder)
    (folder / "notes.txt").write_text("mine")
    model = tmp_path / "model.onnx"
    onnx.save(Chain().conv("c", 2).relu("odd").flatten().dense("d").model(), model)

    def fail(_: onnx.ModelProto) -> None:
        raise UnsupportedModelError("the operator has no kernel")

    monkeypatch.setattr(pipeline, "layers_of", fail)
    with pytest.raises(UnsupportedModelError):
        fer.compile(model, output=tmp_path / "m.so", dump=folder)
    assert names(folder) == [*OF_MODEL, "notes.txt"]
    assert "[odd]" in (folder / "01-tidy.txt").read_text()


def test_an_unusable_folder_is_one_sentence_before_any_work(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("work has started")

    monkeypatch.setattr(pipeline, "import_model", never)
    (tmp_path / "file").touch()
    unusable = {
        "file": "is not a folder",
        "missing/dump": "lies in a folder that does not exist",
        "m.so": "is the output",
    }
    for name, reason in unusable.items():
        with pytest.raises(CompileError) as caught:
            fer.compile(short_model, output=tmp_path / "m.so", dump=tmp_path / name)
        assert_sentence(str(caught.value), str(tmp_path / name), reason, "expected a folder")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
@pytest.mark.parametrize("name", [".", "new"])
def test_a_folder_without_permission_is_one_sentence(
    short_model: Path, tmp_path: Path, name: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(CompileError) as caught:
        fer.compile(short_model, output=tmp_path / "m.so", dump=closed / name)
    assert_sentence(str(caught.value), str(closed), "cannot be written to", "expected a folder")


def test_a_full_disk_is_one_sentence(
    short_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CompileError) as caught:
        fer.compile(short_model, output=tmp_path / "m.so", dump=tmp_path / "dump")
    assert_sentence(str(caught.value), str(tmp_path / "dump"), "No space left", "make room")


def test_it_passes_through_a_process_of_its_own(short_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    fer.compile(short_model, output=tmp_path / "m.so", batch_sizes=[1], dump=folder, isolated=True)
    assert names(folder) == OF_MODEL + OF_CPU
