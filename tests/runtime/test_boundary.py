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
    assert not halves & {"compiler", "importer", "rewrite", "kernels", "tuning", "zoo", "cli"}


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
