"""The suites' library and model, and engines opened in this process, one at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ferplus_tvm.artifact import library_file
from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench.engines.catalog import CPU_KINDS
from ferplus_tvm.bench.engines.catalog import open_engine as open_kind
from ferplus_tvm.bench.engines.opened import OURS, Opened
from ferplus_tvm.bench.subjects import Subject, write_model
from ferplus_tvm.bench.timing import quiet


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what is measured."""
    parser.addoption("--library", help="a compiled library; without one the model is compiled")
    parser.addoption("--model", default="bundled", help="the model that the library holds")


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library that was named, or one that is compiled now."""
    given = request.config.getoption("--library")
    if given:
        return Path(given)
    import ferplus_tvm

    output = tmp_path_factory.mktemp("library") / "ferplus.so"
    return ferplus_tvm.compile(request.config.getoption("--model"), output=output).path


@pytest.fixture(scope="session")
def manifest(library: Path) -> Manifest:
    """Give what the library says of itself."""
    return library_file.read_manifest(library)


@pytest.fixture(scope="session")
def model(
    request: pytest.FixtureRequest,
    library: Path,
    manifest: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Give the model as it was imported, which the peers run."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    ours = Subject(OURS, OURS, library, manifest)
    write_model(request.config.getoption("--model"), ours, path)
    return path


Open = Callable[[str, int, int], Opened]


@pytest.fixture
def open_engine(library: Path, model: Path, manifest: Manifest) -> Iterator[Open]:
    """Open an engine of a kind for a number of threads and a batch size, alone on the machine."""
    opened: list[Opened] = []

    def open_(kind: str, threads: int, batch: int) -> Opened:
        module = CPU_KINDS[kind].module
        if module and importlib.util.find_spec(module) is None:
            pytest.skip(f"{kind} is not installed")
        path = library if kind == OURS else model
        opened.append(open_kind(kind, str(path), threads, batch, manifest.face_shape))
        return opened[-1]

    yield open_
    for each in opened:
        if each.engine is not None:
            each.engine.close()
    opened.clear()
    quiet.wait()
