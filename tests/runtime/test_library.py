import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import library_file
from ferplus_tvm.artifact.library_file import Artifact, read_manifest
from ferplus_tvm.artifact.manifest import Function
from ferplus_tvm.errors import ArtifactError, RuntimeLibraryError
from ferplus_tvm.host import runtime_library
from ferplus_tvm.runtime import loader
from tests import artifacts
from tests.artifacts import assert_sentence
from tests.network import faces

RunPython = Callable[..., str]
elf = pytest.mark.skipif(sys.platform != "linux", reason="build ids are found in ELF files")


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next engine look for the runtime library, as in a new process."""
    monkeypatch.setattr(loader._state, "runtime", None)
    monkeypatch.setattr(loader._state, "modules", {})


def runtime_name() -> str:
    installed = runtime_library.installed()
    assert installed is not None
    return installed.name


# In a process of its own, where tvm is not imported.
REFUSED = """
import sys
import ferplus_tvm as fer
try:
    fer.load(sys.argv[1])
except fer.errors.RuntimeLibraryError as error:
    print(error)
"""


# --- which runtime library -------------------------------------------------------------------


def test_the_runtime_is_looked_for_beside_then_installed_then_in_the_variables_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, installed, named = (tmp_path / name for name in ("beside", "installed", "named"))
    name = runtime_name()
    for folder in (beside, installed, named):
        folder.mkdir()
        (folder / name).touch()
    monkeypatch.setenv("TVM_LIBRARY_PATH", str(named))
    monkeypatch.setattr(runtime_library, "installed", lambda: installed / name)

    assert runtime_library.find(beside).parent == beside
    (beside / name).unlink()
    assert runtime_library.find(beside).parent == installed
    monkeypatch.setattr(runtime_library, "installed", lambda: None)
    assert runtime_library.find(beside).parent == named


@pytest.mark.parametrize("variable", [None, "/nowhere/at/all"])
def test_no_runtime_at_all_is_a_sentence_that_names_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.setattr(runtime_library, "installed", lambda: None)
    monkeypatch.delenv("TVM_LIBRARY_PATH", raising=False)
    if variable:
        monkeypatch.setenv("TVM_LIBRARY_PATH", variable)

    with pytest.raises(RuntimeLibraryError) as caught:
        runtime_library.find(tmp_path)

    message = str(caught.value)
    assert_sentence(message, str(tmp_path), "apache-tvm", "TVM_LIBRARY_PATH", "--with-runtime")
    assert (variable or "not set") in message


def test_an_engine_without_a_runtime_raises_that_error(
    narrow_library: Path, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_library, "installed", lambda: None)
    monkeypatch.delenv("TVM_LIBRARY_PATH", raising=False)

    with pytest.raises(RuntimeLibraryError):
        fer.load(narrow_library)


@elf
def test_the_identity_is_the_build_id_that_other_tools_see() -> None:
    installed = runtime_library.installed()
    assert installed is not None
    identity = runtime_library.identity(installed)

    assert len(bytes.fromhex(identity)) >= 8
    if shutil.which("readelf"):
        said = subprocess.run(
            ["readelf", "-n", installed], capture_output=True, text=True, check=True
        ).stdout
        assert f"Build ID: {identity}" in said


def test_a_file_that_is_no_elf_is_known_by_its_sha256(tmp_path: Path) -> None:
    for content in (b"MZ" * 100, b"\xcf\xfa\xed\xfe" * 50):
        (tmp_path / "x").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        assert runtime_library.identity(tmp_path / "x") == f"sha256-{digest}"
    (tmp_path / "x").write_bytes(b"")
    assert runtime_library.identity(tmp_path / "x") == ""


@elf
def test_a_runtime_of_another_build_is_refused_with_both_named(
    narrow_library: Path, tmp_path: Path, run_python: RunPython
) -> None:
    installed = runtime_library.installed()
    assert installed is not None
    ours = runtime_library.identity(installed)
    data = installed.read_bytes()
    changed = data.replace(bytes.fromhex(ours), bytes.fromhex(ours)[::-1])
    assert changed != data
    (tmp_path / installed.name).write_bytes(changed)
    moved = Path(shutil.copy(narrow_library, tmp_path))
    theirs = runtime_library.identity(tmp_path / installed.name)
    assert theirs not in ("", ours)

    message = run_python(REFUSED, moved).strip()

    version = read_manifest(narrow_library).tvm_version
    assert_sentence(message, str(tmp_path), theirs[:12], ours[:12], version)


@elf
def test_a_library_compiled_with_another_runtime_is_refused_after_one_is_loaded(
    narrow_library: Path, tmp_path: Path
) -> None:
    fer.load(narrow_library).close()
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", runtime_id="ab" * 20)

    with pytest.raises(RuntimeLibraryError) as caught:
        fer.load(path)

    assert_sentence(str(caught.value), "abababababab", "compile the library again")


@pytest.mark.parametrize("version", ["0.1.99", "0.2.0.post1", "7.0.3"])
def test_another_tvm_ffi_is_refused_with_both_versions_and_the_pip_command(
    narrow_library: Path, tmp_path: Path, version: str
) -> None:
    import tvm_ffi

    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", tvm_ffi_version=version)

    with pytest.raises(RuntimeLibraryError) as caught:
        fer.load(path)

    message = str(caught.value)
    assert_sentence(message, f"apache-tvm-ffi {version},", tvm_ffi.__version__)
    base = ".".join(version.split(".")[:3])
    assert f"pip install 'apache-tvm-ffi~={base}.0'" in message


def test_a_patch_of_the_same_tvm_ffi_will_do(narrow_library: Path, tmp_path: Path) -> None:
    compiled = read_manifest(narrow_library).tvm_ffi_version
    patched = ".".join([*compiled.split(".")[:3], "post99"])
    path = artifacts.rewrite(narrow_library, tmp_path / "x.so", tvm_ffi_version=patched)

    with fer.load(path) as engine:
        assert engine.scores(faces(1)).shape == (1, 8)


@elf
def test_a_file_that_only_looks_like_the_runtime_is_a_sentence(
    narrow_library: Path, tmp_path: Path, run_python: RunPython
) -> None:
    moved = Path(shutil.copy(narrow_library, tmp_path))
    (tmp_path / runtime_name()).write_bytes(b"not a library")

    message = run_python(REFUSED, moved).strip()

    assert_sentence(message, str(tmp_path / runtime_name()), "has build id", "apache-tvm")


# --- together with tvm -----------------------------------------------------------------------

USE = """
import sys
import numpy as np
import ferplus_tvm as fer
x = np.zeros((3, 1, 64, 64), np.float32)

def load():
    return fer.load(sys.argv[1], threads=2)

def use_tvm():
    import tvm
    from tvm.script import tirx as T
    return tvm.runtime.tensor(x).numpy().sum() == 0
"""


@pytest.mark.parametrize("beside", [False, True], ids=["installed", "copy beside"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_tvm_may_be_imported_before_and_after(
    narrow_library: Path, tmp_path: Path, run_python: RunPython, beside: bool, order: str
) -> None:
    path = Path(shutil.copy(narrow_library, tmp_path))
    if beside:
        installed = runtime_library.installed()
        assert installed is not None
        shutil.copy(installed, tmp_path)
    code = """
if sys.argv[2] == "before":
    assert use_tvm()
engine = load()
first = engine.scores(x)
assert use_tvm()
assert (engine.scores(x) == first).all()
with load() as again:
    assert (again.scores(x) == first).all()
"""
    run_python(USE + code, path, order)


def test_an_apache_tvm_ffi_that_cannot_be_imported_is_told_with_where_it_runs(
    narrow_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tvm_ffi", None)

    with pytest.raises(RuntimeLibraryError) as caught:
        fer.load(narrow_library)
    assert_sentence(str(caught.value), "apache-tvm-ffi cannot be imported", "glibc 2.28", "musl")


# --- paths and replaced files ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ferplus", "ferplus.tvm", "ferplus.so.1", "mit Leerzeichen und Gefühl 情緒.so"]
)
def test_a_library_may_have_any_name(
    narrow_library: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(narrow_library, tmp_path / name))
    x = faces(1)
    with fer.load(narrow_library) as engine:
        expected = engine.scores(x).tobytes()
    monkeypatch.setattr(loader._state, "modules", {})  # open the code anew

    with fer.load(path) as engine:
        assert engine.scores(x).tobytes() == expected


def test_a_symbolic_link_is_followed(narrow_library: Path, tmp_path: Path) -> None:
    link = tmp_path / "current.so"
    link.symlink_to(narrow_library)

    with fer.load(link) as engine:
        assert engine.path == link and engine.scores(faces(1)).shape == (1, 8)


@pytest.mark.parametrize("change", ["other code", "other weights"])
def test_a_library_replaced_by_renaming_serves_new_engines_and_the_old_one_goes_on(
    narrow_library: Path, other_library: Path, tmp_path: Path, change: str
) -> None:
    path = Path(shutil.copy(narrow_library, tmp_path / "current.so"))
    x = faces(3)
    if change == "other code":
        replacement = Path(shutil.copy(other_library, tmp_path / "new.so"))
    else:
        halved = np.frombuffer(Artifact(path).weights, np.float32) * np.float32(0.5)
        replacement = artifacts.rewrite(path, tmp_path / "new.so", halved.tobytes())
    with fer.load(replacement) as alone:
        new = alone.scores(x).tobytes()

    with fer.load(path) as old_engine:
        old = old_engine.scores(x).tobytes()
        old_batches = old_engine.manifest.batch_sizes
        os.replace(replacement, path)
        with fer.load(path) as new_engine:
            assert new_engine.scores(x).tobytes() == new
            assert old_engine.scores(x).tobytes() == old
            if change == "other code":
                assert (old_batches, new_engine.manifest.batch_sizes) == ((1, 2), (2,))
            else:
                assert new != old
        assert old_engine.scores(x).tobytes() == old


@elf
def test_a_library_overwritten_in_place_is_refused(
    narrow_library: Path, other_library: Path, tmp_path: Path, run_python: RunPython
) -> None:
    path = Path(shutil.copy(narrow_library, tmp_path / "current.so"))
    code = """
import os, shutil, sys
import ferplus_tvm as fer
engine = fer.load(sys.argv[1])
shutil.copyfile(sys.argv[2], sys.argv[1])
try:
    fer.load(sys.argv[1])
except fer.errors.ArtifactError as error:
    print(error)
sys.stdout.flush()
os._exit(0)  # the first engine's code is gone
"""
    message = run_python(code, path, other_library).strip()

    assert_sentence(message, str(path), "overwritten in place", "renaming", "restart")


@elf
def test_what_the_dynamic_loader_refuses_is_a_sentence(
    narrow_library: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.so"
    image = bytearray(narrow_library.read_bytes()[:4096])
    image[16] = 1  # an object file that was not linked
    bare = {1: Function("main_batch1", ())}
    manifest = replace(read_manifest(narrow_library), tensors=(), functions=bare)
    with path.open("wb") as file:
        library_file.write(file, [bytes(image)], b"", [manifest])

    for _ in range(2):
        with pytest.raises(ArtifactError) as caught:
            fer.load(path)
        assert_sentence(str(caught.value), str(path), "refused by the dynamic loader (")
        assert "(only ET_DYN and ET_EXEC can be loaded)" in str(caught.value)
