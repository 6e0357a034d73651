import hashlib
import json
import math
import os
import platform
import re
import site
import stat
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import library_file
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.artifact.manifest import Tensor
from ferplus_tvm.compiler import export, pipeline
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.compiler.verify import Verification
from ferplus_tvm.errors import (
    ArtifactFormatError,
    CompileError,
    FerplusError,
    LinkerError,
    TemporaryFolderError,
    VerificationError,
)
from ferplus_tvm.host import cpu, runtime_library
from ferplus_tvm.targets import resolve
from ferplus_tvm.toolchain import link
from ferplus_tvm.zoo import resolve as resolve_model
from tests.artifacts import assert_sentence

FOREIGN = "aarch64" if cpu.architecture() != "aarch64" else "x86-64-v2"
LAYERS = 10 + 4 + 3  # convolutions, pools, dense layers: see the model's table


# --- what the manifest says ------------------------------------------------------------------


def test_the_manifest_of_the_bundled_model_is_true(compiled: CompileResult) -> None:
    manifest = read_manifest(compiled.path)

    model = resolve_model("bundled")
    assert manifest.model_sha256 == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    assert manifest.labels == fer.EMOTIONS
    assert manifest.batch_sizes == (1, 3, 8)
    assert manifest.precision == "float32" and manifest.value_range == (0, 255)
    assert manifest.input_shape == ("N", 1, 64, 64) and manifest.output_shape == ("N", 8)
    assert (manifest.arch, manifest.system) == (cpu.architecture(), cpu.system())
    assert set(manifest.cpu_features) <= cpu.features()
    assert manifest.options["batch_sizes"] == [1, 3, 8]
    assert manifest.options["model"] == "bundled"
    assert fer.__version__ in manifest.created_with


def test_the_result_and_the_file_agree(compiled: CompileResult) -> None:
    in_file = read_manifest(compiled.path)

    assert compiled.verified and compiled.seconds > 0 and compiled.runtime is None
    assert in_file.check == compiled.manifest.check
    assert in_file.kernels == compiled.manifest.kernels
    assert in_file.tensors == compiled.manifest.tensors


def test_the_measured_error_is_recorded_and_within_the_tolerance(compiled: CompileResult) -> None:
    check = read_manifest(compiled.path).check

    assert check.error is not None and 0 < check.error <= check.tolerance <= 1e-4
    assert len(check.reference) == check.faces >= 2
    assert all(len(row) == 8 for row in check.reference)


def test_every_layer_names_its_kernel_at_every_batch_size(compiled: CompileResult) -> None:
    kernels = read_manifest(compiled.path).kernels

    for batch in (1, 3, 8):
        of_batch = [kernel for kernel in kernels if kernel.batch == batch]
        # A kernel computes a layer, and with some the pooling that follows it.
        layers = [kernel.layer for kernel in of_batch]
        layers += [kernel.fused for kernel in of_batch if kernel.fused]
        assert len(set(layers)) == len(layers) == LAYERS
        assert all(kernel.kernel and kernel.algorithm and kernel.tiling for kernel in of_batch)
        assert all(kernel.why and kernel.milliseconds > 0 for kernel in of_batch)


def test_nothing_of_this_machines_paths_is_in_the_manifest(compiled: CompileResult) -> None:
    text = json.dumps(read_manifest(compiled.path).to_dict())

    folders = [sys.prefix, sys.base_prefix, os.getcwd(), tempfile.gettempdir(), *site.PREFIXES]
    folders += [str(Path(fer.__file__).parents[1]), str(Path.home()), str(compiled.path.parent)]
    for folder in folders:
        if len(folder) > 1:
            assert folder not in text
            assert json.dumps(folder)[1:-1] not in text
    assert not re.search(r'"(/|[A-Za-z]:\\\\)', text)
    if len(platform.node()) > 4:
        assert platform.node() not in text


def test_the_same_model_compiles_to_the_same_bytes(narrow_model: Path, tmp_path: Path) -> None:
    first, second = (
        fer.compile(narrow_model, output=tmp_path / name, batch_sizes=(1,)).path
        for name in ("a.so", "b.so")
    )

    assert first.read_bytes() == second.read_bytes()


def length(tensor: Tensor) -> int:
    """Return a weight's bytes."""
    return {"float32": 4, "float16": 2}[tensor.dtype] * math.prod(tensor.shape)


# --- the file --------------------------------------------------------------------------------


def test_batch_sizes_share_one_copy_of_the_weights(compiled: CompileResult) -> None:
    manifest = read_manifest(compiled.path)
    parameters = 8_757_704 * 4  # bytes: see the model's table

    assert manifest.weights_bytes <= 2.7 * parameters
    assert compiled.path.stat().st_size <= 2.7 * parameters
    assert len({tensor.name for tensor in manifest.tensors}) == len(manifest.tensors)
    weights = bytes(library_file.Artifact(compiled.path).weights)
    digests = [
        hashlib.sha256(weights[tensor.offset :][: length(tensor)]).digest()
        for tensor in manifest.tensors
    ]
    assert len(set(digests)) == len(digests)  # no two hold the same bytes


def test_pieces_of_the_weights_do_not_overlap(compiled: CompileResult) -> None:
    end = 0
    for tensor in sorted(read_manifest(compiled.path).tensors, key=lambda tensor: tensor.offset):
        assert tensor.offset >= end and tensor.offset % 64 == 0
        end = tensor.offset + length(tensor)


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_the_file_has_the_permissions_of_any_new_program(compiled: CompileResult) -> None:
    mask = os.umask(0)
    os.umask(mask)

    assert stat.S_IMODE(compiled.path.stat().st_mode) == 0o777 & ~mask


def test_nothing_else_is_left_in_the_folder(compiled: CompileResult) -> None:
    assert [path.name for path in compiled.path.parent.iterdir()] == [compiled.path.name]


# --- all or nothing --------------------------------------------------------------------------


def off(path: Path, name: str, *_: object) -> Verification:
    raise VerificationError(f"{name} is off by a made-up amount")


def crash(*_: object, **__: object) -> None:
    raise RuntimeError("made up")


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("module", "name", "failure", "raised"),
    [
        (pipeline, "verify_as", off, VerificationError),
        (pipeline, "verify_as", crash, RuntimeError),
        (export, "write", full, CompileError),
        (library_file, "write", full, CompileError),
        (os, "replace", full, CompileError),
    ],
    ids=["scores are off", "crash", "disk full", "disk full while writing", "renaming"],
)
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    narrow_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    existing: bool,
    module: Any,
    name: str,
    failure: Any,
    raised: type[Exception],
) -> None:
    output = tmp_path / "ferplus.so"
    if existing:
        output.write_bytes(b"the library of yesterday")
    # What comes before the end is not in question here.
    monkeypatch.setattr(export, "link_image", lambda *_: b"\x7fELF")
    monkeypatch.setattr(pipeline.build, "executable", lambda *_: None)
    monkeypatch.setattr(pipeline, "verify_as", lambda *_: Verification({1: 1e-7}, 1e-4))
    monkeypatch.setattr(module, name, failure)

    with pytest.raises(raised) as caught:
        fer.compile(narrow_model, output=output, batch_sizes=(1,))

    monkeypatch.undo()
    if isinstance(caught.value, FerplusError):
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == (["ferplus.so"] if existing else [])
    if existing:
        assert output.read_bytes() == b"the library of yesterday"


def test_an_existing_library_is_replaced_by_another_file(
    narrow_model: Path, narrow_library: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ferplus.so"
    output.write_bytes(b"the library of yesterday")
    with output.open("rb") as reader:  # as an app that has it mapped
        fer.compile(narrow_model, output=output, batch_sizes=(2,))

        assert reader.read() == b"the library of yesterday"
    assert read_manifest(output).batch_sizes == (2,)


# --- wrong calls -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (0,), (-1, 8), (4097,), (1, 10**9)])
def test_impossible_batch_sizes_are_a_value_error(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"batch sizes are .*: expected one or more, each in 1"):
        fer.compile(output=tmp_path / "x.so", batch_sizes=sizes)


@pytest.mark.parametrize("output", ["missing/x.so", "."])
def test_an_impossible_output_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(pipeline, "import_model", crash)

    with pytest.raises(CompileError) as caught:
        fer.compile(output=tmp_path / output)

    assert_sentence(str(caught.value), str(tmp_path), "a file name such as ferplus.so")


def test_a_missing_folder_for_temporary_files_is_said_before_any_work(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    seen: list[str] = []

    with pytest.raises(TemporaryFolderError) as caught:
        fer.compile(narrow_model, output=tmp_path / "x.so", progress=seen.append)

    assert_sentence(str(caught.value), str(tmp_path / "absent"), "TMPDIR")
    assert not seen and not list(tmp_path.iterdir())


def test_what_must_not_be_replaced_is_not(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "import_model", crash)
    model = tmp_path / "model.onnx"
    model.write_bytes(narrow_model.read_bytes())
    linked = tmp_path / "also.onnx"
    linked.hardlink_to(model)
    runtime = tmp_path / runtime_library.file_name(cpu.system())
    outputs = [model, linked, runtime]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        outputs.append(tmp_path / "pipe")

    for output in outputs:
        with pytest.raises(CompileError) as caught:
            fer.compile(model, output=output)
        assert_sentence(str(caught.value), str(output), "a file name such as ferplus.so")
    assert model.read_bytes() == narrow_model.read_bytes()


@pytest.mark.parametrize("sizes", [(1.5,), ("1", 2)])
def test_batch_sizes_are_whole_numbers(tmp_path: Path, sizes: Any) -> None:
    with pytest.raises(TypeError):
        fer.compile(output=tmp_path / "f.so", batch_sizes=sizes)


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
def test_a_folder_that_cannot_be_written_to_is_a_sentence(
    narrow_model: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CompileError) as caught:
            fer.compile(narrow_model, output=tmp_path / "x.so", batch_sizes=(1,))
    finally:
        tmp_path.chmod(0o700)

    assert_sentence(str(caught.value), str(tmp_path), "give another output")


def test_a_library_is_no_model(narrow_library: Path, tmp_path: Path) -> None:
    with pytest.raises(FerplusError):
        fer.compile(narrow_library, output=tmp_path / "x.so")
    with pytest.raises(ArtifactFormatError):
        fer.load(resolve_model("bundled"))


# --- other targets ---------------------------------------------------------------------------


def test_a_foreign_target_without_a_linker_is_a_linker_error(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "find_linker", lambda triple: None)

    with pytest.raises(LinkerError) as caught:
        fer.compile(narrow_model, target=FOREIGN, output=tmp_path / "x.so", batch_sizes=(1,))

    assert_sentence(str(caught.value), resolve(FOREIGN).arch, "pip install ziglang")
    assert list(tmp_path.iterdir()) == []


def test_a_linker_that_fails_is_quoted(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-c", "raise SystemExit('cannot find -lmagic')"]
    monkeypatch.setattr(link, "find_linker", lambda triple: failing)

    with pytest.raises(LinkerError) as caught:
        fer.compile(narrow_model, target=FOREIGN, output=tmp_path / "x.so", batch_sizes=(1,))

    assert_sentence(str(caught.value), "failed with status 1", "cannot find -lmagic")


def test_what_this_machine_cannot_run_is_saved_unverified_with_its_acceptance_test(
    narrow_model: Path, narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands in for a cross compiler: whatever it is given, it writes some file.
    script = "import sys; open(sys.argv[sys.argv.index('-o') + 1], 'wb').write(b'linked')"
    monkeypatch.setattr(link, "find_linker", lambda triple: [sys.executable, "-c", script])

    result = fer.compile(narrow_model, target=FOREIGN, output=tmp_path / "x.so", batch_sizes=(1,))

    manifest = read_manifest(result.path)
    assert not result.verified
    assert manifest.check.error is None and manifest.runtime_id == ""
    assert replace(manifest.check, error=0) == replace(read_manifest(narrow_library).check, error=0)
    assert manifest.arch == resolve(FOREIGN).arch
    with pytest.raises(FerplusError, match=f"compiled for {manifest.arch}"):
        fer.load(result.path)
    with pytest.raises(FerplusError, match="cannot be verified here"):
        fer.verify(result.path)


def test_the_runtime_of_a_foreign_target_is_not_at_hand(
    narrow_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "import_model", crash)  # said before any work

    with pytest.raises(CompileError) as caught:
        fer.compile(narrow_model, FOREIGN, tmp_path / "x.so", with_runtime=True)

    assert_sentence(str(caught.value), resolve(FOREIGN).triple, "wheel", "pip download")
    assert list(tmp_path.iterdir()) == []


# --- progress --------------------------------------------------------------------------------


def test_every_stage_is_reported_once_and_in_order(narrow_model: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    fer.compile(narrow_model, output=tmp_path / "x.so", batch_sizes=(1,), progress=seen.append)

    assert tuple(seen) == pipeline.STAGES
