"""Libraries on a file system that is mounted noexec."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tvm_ffi

import ferplus_tvm as fer
from ferplus_tvm.artifact.library_file import read_manifest
from ferplus_tvm.cli.info import info
from ferplus_tvm.errors import ArtifactError
from ferplus_tvm.runtime import loader
from ferplus_tvm.runtime.noexec import noexec_mount, noexec_problem
from tests import artifacts
from tests.artifacts import assert_sentence
from tests.mounts import mounted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of noexec")


@pytest.fixture(autouse=True)
def opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader._state, "modules", {})


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "noexec", "noexec") as folder:
        yield folder


def test_it_is_said_by_all_that_run_code(
    noexec: Path, narrow_library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Path(shutil.copy(narrow_library, noexec / "copy.so"))

    for run in (fer.load, fer.verify):
        with pytest.raises(ArtifactError) as caught:
            run(library)
        assert_sentence(str(caught.value), str(library), f"noexec ({noexec})", "another folder")
    info(library)
    (runs_here, *_) = capsys.readouterr().out.splitlines()
    assert runs_here.startswith("runs here") and f"no: {library} lies on" in runs_here
    assert "noexec" in runs_here
    assert fer.read_manifest(library).batch_sizes == (1, 2)


def test_a_copy_elsewhere_runs(noexec: Path, narrow_library: Path, tmp_path: Path) -> None:
    kept = shutil.copy(narrow_library, noexec / "copy.so")
    with fer.load(shutil.copy(kept, tmp_path / "elsewhere.so")) as engine:
        assert not engine.closed


def test_a_folder_for_temporary_files_that_is_mounted_noexec_is_named(
    noexec: Path, narrow_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(noexec))
    manifest = read_manifest(narrow_library)
    second = artifacts.manifest(image_offset=4096)
    here = Path(loader.__file__)

    said = noexec_problem(narrow_library, second, here)
    assert said is not None
    assert_sentence(said, str(narrow_library), f"{noexec}, to which", "TMPDIR")
    assert noexec_problem(narrow_library, manifest, here) is None


def test_a_refusal_by_the_loader_is_told_by_its_cause(
    narrow_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise RuntimeError(f"Failed to load {path}: failed to map segment from shared object")

    monkeypatch.setattr(tvm_ffi, "load_module", refuse)
    with pytest.raises(ArtifactError, match="failed to map segment"):
        fer.load(narrow_library)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(ArtifactError, match="mounted noexec"):
        fer.load(narrow_library)


def test_a_runtime_library_that_is_mounted_noexec_is_named(
    noexec: Path, narrow_library: Path
) -> None:
    runtime = noexec / "libtvm_runtime.so"
    runtime.touch()

    said = noexec_problem(narrow_library, read_manifest(narrow_library), runtime)
    assert said is not None
    assert_sentence(said, str(runtime), "it and the library into another folder")


def test_other_file_systems_and_missing_files_are_not_noexec(tmp_path: Path) -> None:
    assert noexec_mount(tmp_path) is None
    assert noexec_mount(tmp_path / "absent") is None


def test_a_process_of_its_own_says_it_too(
    noexec: Path, narrow_library: Path, run_python: Callable[..., str]
) -> None:
    code = """
import sys, ferplus_tvm as fer
try:
    fer.load(sys.argv[1])
except fer.errors.ArtifactError as error:
    print(error)
"""
    said = run_python(code, shutil.copy(narrow_library, noexec / "copy.so"))
    assert_sentence(said.strip(), "noexec")
