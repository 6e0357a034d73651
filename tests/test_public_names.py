"""The names that an app may use."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import ferplus_tvm as fer
from ferplus_tvm.targets import GPUS, NAMED

CLASSES = {
    "AvailableTarget",
    "Camera",
    "CompileResult",
    "Detection",
    "Engine",
    "Face",
    "FerplusError",
    "Frame",
    "Gain",
    "Manifest",
    "Photo",
    "PhotoOptions",
    "Prediction",
    "PreprocessOptions",
    "SetResult",
    "Source",
    "Timeline",
    "TuneResult",
    "Verification",
    "Video",
    "VideoWriter",
}
FUNCTIONS = {
    "compile",
    "fetch_model",
    "list_targets",
    "load",
    "postprocess",
    "preprocess",
    "read_manifest",
    "tune",
    "verify",
    "video",
}


def test_the_public_names_are_these_and_all_of_them_are_there() -> None:
    assert set(fer.__all__) == CLASSES | FUNCTIONS | {"EMOTIONS", "__version__", "errors"}
    for name in fer.__all__:
        assert getattr(fer, name).__doc__, name
    assert set(fer.__all__) <= set(dir(fer))


def test_importing_the_package_imports_nothing_of_the_compiler(
    run_python: Callable[..., str],
) -> None:
    code = "import sys, ferplus_tvm; print(*{name.split('.')[0] for name in sys.modules})"
    modules = set(run_python(code).split())
    assert "numpy" in modules
    assert not modules & {"tvm", "tvm_ffi", "onnx", "typer", "rich", "httpx", "torch", "PIL"}


def test_the_version_stands_once() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "ferplus_tvm/_version.py"
    assert fer.__version__.count(".") == 2


def test_the_listed_targets_are_those_that_compile_takes() -> None:
    listed = {target.name: target for target in fer.list_targets()}
    assert set(listed) - {"cuda"} == {"native", *NAMED, *(f"cuda/{arch}" for arch in GPUS)}
    assert listed["native"].runs_here and listed["native"].target.gpu is None
    assert "avx512f" in listed["x86-64-v4"].target.features
    gpu = listed["cuda/sm_90"].target.gpu
    assert gpu is not None and gpu.arch == "sm_90"


def test_listing_targets_without_tvm_tells_the_pip_command(run_python: Callable[..., str]) -> None:
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tvm" else find(name, *rest)
import ferplus_tvm as fer
try:
    fer.list_targets()
except fer.errors.MissingExtraError as error:
    print(error)
"""
    assert "pip install 'ferplus_tvm[compile]'" in run_python(code)


def test_a_manifest_is_read_without_opening_the_library(
    narrow_library: Path, no_loader: None
) -> None:
    manifest = fer.read_manifest(narrow_library)
    assert manifest.batch_sizes == (1, 2) and manifest.labels == fer.EMOTIONS


def test_the_bundled_model_is_fetched_without_a_network() -> None:
    seen: list[tuple[int, int]] = []
    path = fer.fetch_model("bundled", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes()[:1] == b"\x08" and not seen
