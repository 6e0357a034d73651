"""Files that are no library of ours, and libraries that this machine cannot run."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import checks, fit
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.errors import ArtifactError, ArtifactFormatError, CpuFeatureError
from ferplus_tvm.host import cpu
from tests import artifacts
from tests.artifacts import assert_sentence

pytestmark = pytest.mark.usefixtures("no_loader")


# --- other versions and other files ----------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_format_of_before_the_first_release_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.so"
    path.write_bytes(artifacts.elf_image() + b"FERPLUS-TVM\n" + struct.pack("<I", version))
    with pytest.raises(ArtifactFormatError) as caught:
        fer.load(path)
    assert_sentence(str(caught.value), f"format {version}", "compile it again")


@pytest.mark.parametrize("version", [5, 77, 2**32 - 1])
def test_a_future_format_is_refused_whatever_else_it_changes(tmp_path: Path, version: int) -> None:
    path = tmp_path / "future.so"
    path.write_bytes(artifacts.elf_image() + b"FERPLUS-TVM\n" + struct.pack("<I", version))

    with pytest.raises(ArtifactFormatError) as caught:
        fer.load(path)

    assert_sentence(str(caught.value), f"format {version}", "up to 4", "upgrade ferplus_tvm")


def test_a_stripped_library_is_recognised(library: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(library, tmp_path / "copy.so"))
    if shutil.which("strip"):
        subprocess.run(["strip", copy], check=True)
    else:
        end = checks._elf_end(memoryview(copy.read_bytes()))
        assert end is not None
        os.truncate(copy, end)

    with pytest.raises(ArtifactFormatError) as caught:
        fer.load(copy)

    assert_sentence(str(caught.value), str(copy), "stripped", "as 'ferplus-tvm compile' wrote it")


@pytest.mark.skipif(os.name == "nt", reason="looks for ELF files")
def test_another_shared_library_is_recognised() -> None:
    import numpy._core._multiarray_umath as extension

    if Path(extension.__file__).read_bytes()[:4] != b"\x7fELF":
        pytest.skip("extension modules are no ELF files here")
    with pytest.raises(ArtifactFormatError) as caught:
        fer.load(extension.__file__)

    assert_sentence(str(caught.value), "some other shared library", "'ferplus-tvm compile'")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.so", b"", "is empty"),
        ("x.so", b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
        ("x.so", b"\n  <html lang='en'>", "a web page"),
        ("x.so", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        ("x.onnx", b"\x08\x03\x12\x04CNTK" * 40, "a model, which has to be compiled first"),
        ("x.txt", b"hello", "no library"),
        ("x.so", b"\0" * 5000, "no library"),
        ("x.so", b"\x7fELF", "no library"),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(ArtifactFormatError) as caught:
        fer.load(path)

    assert_sentence(str(caught.value), str(path), what)


def test_the_model_itself_is_refused(narrow_model: Path) -> None:
    with pytest.raises(ArtifactFormatError, match="a model, which has to be compiled first"):
        fer.load(narrow_model)


def test_a_missing_file_a_folder_and_an_impossible_name_are_sentences(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.so", tmp_path, tmp_path / ("x" * 300), "nul\0inside.so"):
        with pytest.raises(ArtifactError) as caught:
            fer.load(path)
        assert_sentence(str(caught.value), "cannot be read", "made by 'ferplus-tvm compile'")


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
def test_a_file_without_permission_is_a_sentence(tmp_path: Path) -> None:
    made_up = artifacts.write(tmp_path / "x.so")
    made_up.chmod(0)

    with pytest.raises(ArtifactError) as caught:
        fer.load(made_up)

    assert_sentence(str(caught.value), str(made_up), "ermission")


# --- machines that cannot run a library -------------------------------------------------------


def test_a_missing_cpu_feature_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifacts.write(tmp_path / "x.so", cpu_features=("avx512f", "avx2", "fma"))
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "fma", "sse2"}))

    with pytest.raises(CpuFeatureError) as caught:
        fer.load(path)

    assert_sentence(str(caught.value), str(path), "needs avx512f,", "compile it for this machine")
    assert "avx2" not in str(caught.value)
    assert "avx512f" in str(fit.refusal(read_manifest(path)))


def test_the_real_library_names_the_features_it_needs(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = read_manifest(library).cpu_features
    if not needed:
        pytest.skip("the library needs nothing beyond the base architecture")
    monkeypatch.setattr(cpu, "features", lambda: frozenset(needed[1:]))

    with pytest.raises(CpuFeatureError, match=needed[0].replace(".", r"\.")):
        fer.load(library)


@pytest.mark.parametrize("change", [{"arch": "riscv64"}, {"system": "plan9"}])
def test_another_architecture_and_system_are_named(tmp_path: Path, change: dict[str, str]) -> None:
    path = artifacts.write(tmp_path / "x.so", **change)

    with pytest.raises(CpuFeatureError) as caught:
        fer.load(path)

    here = f"{cpu.architecture()} {cpu.system()}"
    assert_sentence(str(caught.value), *change.values(), here, "compile it for this machine")
    assert fit.refusal(read_manifest(path)) is not None


def test_a_library_for_this_machine_is_not_refused(library: Path) -> None:
    assert fit.refusal(read_manifest(library)) is None
