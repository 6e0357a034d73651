"""The app without Python: built, and run on this machine and as an aarch64 program under qemu."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import ferplus_tvm as fer
from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.errors import last_line
from ferplus_tvm.host import cpu, runtime_library
from tests.kernels import emulated

SOURCE = Path(__file__).parents[2] / "examples" / "cpp" / "ferplus.cpp"
FACES = 5
pytestmark = pytest.mark.skipif(cpu.system() != "linux", reason="the example is for Linux")


def build(compiler: str, output: Path, include: Path, libraries: Sequence[Path]) -> Path:
    """Build the example against the folders of TVM's two libraries."""
    command = [compiler, "-std=c++17", "-O1", str(SOURCE), "-o", str(output), f"-I{include}"]
    for folder, name in zip(libraries, ("tvm_ffi", "tvm_runtime"), strict=True):
        command += [f"-L{folder}", f"-l{name}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return output


def run(
    command: Sequence[object], faces: Path, colour: bool = False
) -> subprocess.CompletedProcess[str]:
    written = reference_inputs.inputs(7, FACES)
    if colour:
        written = reference_inputs.inputs(7, FACES, (3, 48, 48)).transpose(0, 2, 3, 1)
    written.tofile(faces)
    return subprocess.run(
        [*map(str, command), str(faces)], capture_output=True, text=True, timeout=600, check=False
    )


def scores_of(done: subprocess.CompletedProcess[str]) -> np.ndarray[tuple[int, int], np.dtype]:
    assert done.returncode == 0, done.stderr
    return np.array([[float(x) for x in line.split()] for line in done.stdout.splitlines()])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the example, built for this machine."""
    import tvm_ffi

    compiler = shutil.which("g++") or shutil.which("clang++")
    runtime = runtime_library.installed()
    if compiler is None or runtime is None:
        pytest.skip("needs a C++ compiler, and the libtvm_runtime of an installed apache-tvm")
    package = Path(tvm_ffi.__file__).parent
    output = tmp_path_factory.mktemp("cpp") / "ferplus"
    libraries = [package / "lib", runtime.parent]
    program = build(compiler, output, package / "include", libraries)
    return ["env", f"LD_LIBRARY_PATH={libraries[0]}:{libraries[1]}", str(program)]


def test_the_app_gives_the_scores_that_python_gives(
    app: list[str], narrow_library: Path, tmp_path: Path
) -> None:
    found = scores_of(run([*app, narrow_library], tmp_path / "faces"))
    with fer.load(narrow_library) as engine:
        expected = engine.scores(reference_inputs.inputs(7, FACES))
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_the_app_takes_faces_as_the_library_says(
    app: list[str], rgb_library: Path, tmp_path: Path
) -> None:
    found = scores_of(run([*app, rgb_library], tmp_path / "faces", colour=True))
    with fer.load(rgb_library) as engine:
        expected = engine.scores(reference_inputs.inputs(7, FACES, engine.face_shape))
    np.testing.assert_array_equal(found.astype(np.float32), expected)

    other = run([*app, rgb_library], tmp_path / "faces")
    assert other.returncode == 1 and "6912 float32 values each" in other.stderr


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "no whole library"),
        (lambda data: data[: len(data) // 2], "no whole library"),
        (lambda data: b"short", "cannot be read"),
        (lambda data: data[:-112] + bytes(112), "no whole library"),
    ],
    ids=["a byte cut off", "half", "a few bytes", "no footer"],
)
def test_the_app_refuses_what_is_no_whole_library(
    app: list[str], narrow_library: Path, tmp_path: Path, damage: object, said: str
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(damage(narrow_library.read_bytes()))  # type: ignore[operator]
    done = run([*app, broken], tmp_path / "faces")
    assert done.returncode == 1 and said in done.stderr and done.stdout == ""


def wheels(folder: Path) -> Path:
    """Unpack the wheels of TVM for aarch64."""
    got = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--platform", "manylinux_2_28_aarch64"),
            *("--dest", str(folder), "apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1"),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    if got.returncode != 0:
        pytest.skip(f"needs TVM's wheels for aarch64 ({last_line(Exception(got.stderr))})")
    unpacked = folder / "unpacked"
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    return unpacked


@pytest.mark.long
@pytest.mark.emulated
@pytest.mark.parametrize("target", ["aarch64", "cortex-a72", "neoverse-v1"])
def test_an_aarch64_library_gives_the_reference_scores_under_qemu(
    target: str, narrow_model: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    reason = emulated.reason_not_to("aarch64")
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if reason or compiler is None:
        pytest.skip(reason or "needs aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)")
    root = tmp_path_factory.getbasetemp() / "aarch64-wheels"
    root.mkdir(exist_ok=True)
    unpacked = root / "unpacked" if (root / "unpacked").exists() else wheels(root)
    libraries = [unpacked / "tvm_ffi" / "lib", unpacked / "tvm" / "lib"]
    program = build(compiler, tmp_path / "ferplus", unpacked / "tvm_ffi" / "include", libraries)
    library = fer.compile(narrow_model, target, tmp_path / "m.so", [1, 2]).path
    search = f"LD_LIBRARY_PATH={libraries[0]}:{libraries[1]}"
    emulator = [emulated.emulator("aarch64"), "-L", "/usr/aarch64-linux-gnu", "-E", search]
    found = scores_of(run([*emulator, program, library], tmp_path / "faces"))
    native = fer.compile(narrow_model, output=tmp_path / "here.so", batch_sizes=[1, 2]).path
    with fer.load(native) as engine:
        reference = engine.scores(reference_inputs.inputs(7, FACES))
    assert reference_inputs.relative_error(found.astype(np.float32), reference.astype(float)) < 1e-4
