"""The runtime half needs no compiler: not imported, and not even installed."""

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import ferplus_tvm as fer

COMPILER_HALF = ("tvm", "onnx", "typer", "rich", "httpx", "platformdirs", "psutil", "xgboost")


def test_running_a_library_imports_nothing_of_the_compiler(
    narrow_library: Path, sample_face: Path, run_python: Callable[..., str]
) -> None:
    code = """
import sys
import ferplus_tvm as fer
with fer.load(sys.argv[1]) as engine:
    engine.predict(sys.argv[2])
print(*{name.split(".")[0] for name in sys.modules})
print(*(name for name in sys.modules if name.startswith("ferplus_tvm.")))
"""
    packages, own = run_python(code, narrow_library, sample_face).splitlines()

    assert "tvm_ffi" in packages.split()
    assert not set(COMPILER_HALF) & set(packages.split())
    halves = {name.split(".")[1] for name in own.split()}
    assert not halves & {
        "compiler",
        "importer",
        "lowering",
        "records",
        "targets",
        "toolchain",
        "kernels",
        "tuning",
        "zoo",
        "cli",
        "bench",
    }


@pytest.fixture
def fake_torch(tmp_path: Path) -> Path:
    """A folder with a package of PyTorch's name that says when it is imported."""
    (tmp_path / "torch.py").write_text("print('torch was imported')\nfloat32 = None\n")
    return tmp_path


def test_an_app_without_pytorch_does_not_get_it(
    narrow_library: Path, fake_torch: Path, run_python: Callable[..., str]
) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[2])
import ferplus_tvm as fer
with fer.load(sys.argv[1]) as engine:
    print("loaded")
import torch
"""
    assert run_python(code, narrow_library, fake_torch).splitlines() == [
        "loaded",
        "torch was imported",
    ]


def test_another_thread_may_import_pytorch_at_the_same_time(
    fake_torch: Path, run_python: Callable[..., str]
) -> None:
    (fake_torch / "tvm_ffi.py").write_text(
        """
import threading
try:
    import torch
except ImportError:
    print("not for the engine")
other = threading.Thread(target=__import__, args=("torch",))
other.start()
other.join()
"""
    )
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from ferplus_tvm.runtime.without_torch import import_tvm_ffi
import_tvm_ffi()
import torch
"""
    assert run_python(code, fake_torch).splitlines() == [
        "not for the engine",
        "torch was imported",
    ]


@pytest.fixture
def runtime_only(tmp_path: Path) -> Path:
    """The Python of a new environment that holds only what the package's metadata require."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    (site,) = environment.glob("lib/python*/site-packages")
    for name in ("numpy", "Pillow", "apache-tvm-ffi", "typing-extensions"):
        distribution = importlib.metadata.distribution(name)
        entries = {str(file).split("/")[0] for file in distribution.files or ()}
        for entry in entries - {"..", "__pycache__"}:
            (site / entry).symlink_to(Path(str(distribution.locate_file(entry))))
    (site / "ferplus_tvm").symlink_to(Path(fer.__file__).parent)
    return environment / "bin" / "python"


@pytest.mark.skipif(os.name == "nt", reason="links to installed packages")
def test_an_app_runs_a_library_and_the_runtime_beside_it_without_apache_tvm(
    narrow_model: Path, sample_face: Path, tmp_path: Path, runtime_only: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    result = fer.compile(
        narrow_model, output=app / "ferplus.so", batch_sizes=(1,), with_runtime=True
    )
    assert result.runtime is not None
    assert sorted(path.name for path in app.iterdir()) == ["ferplus.so", result.runtime.name]
    with fer.load(result.path) as engine:
        expected = engine.predict(sample_face)
    code = """
import importlib.util, sys
import ferplus_tvm as fer
for name in sys.argv[3:]:
    assert importlib.util.find_spec(name) is None, name
with fer.load(sys.argv[1]) as engine:
    print(engine.predict(sys.argv[2]).to_dict())
try:
    fer.compile("x")
except fer.MissingExtraError as error:
    print(error)
"""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [runtime_only, "-I", "-c", code, result.path, sample_face, *COMPILER_HALF],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run()
    assert done.stderr == ""
    prediction, missing = done.stdout.splitlines()
    assert prediction == str(expected.to_dict())
    assert "pip install 'ferplus_tvm[compile]'" in missing

    result.runtime.unlink()  # and without the second file it says what is missing
    assert "RuntimeLibraryError: libtvm_runtime" in run().stderr
