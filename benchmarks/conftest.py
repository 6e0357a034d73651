"""The suites' library and model, and engines opened in this process, one at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ferplus_tvm.bench import engines, quiet


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what is measured."""
    parser.addoption("--library", help="a compiled library; without one the model is compiled")
    parser.addoption("--model", default="bundled", help="the model that the library holds")


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the model as it was imported, which the peers run."""
    from ferplus_tvm.importer import load_model
    from ferplus_tvm.zoo import resolve

    path = tmp_path_factory.mktemp("model") / "model.onnx"
    imported = load_model(resolve(request.config.getoption("--model")))
    path.write_bytes(imported.proto.SerializeToString())
    return path


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library that was named, or one that is compiled now."""
    given = request.config.getoption("--library")
    if given:
        return Path(given)
    import ferplus_tvm

    output = tmp_path_factory.mktemp("library") / "ferplus.so"
    return ferplus_tvm.compile(request.config.getoption("--model"), output=output).path


Open = Callable[[str, int, int], engines.Opened]


@pytest.fixture
def open_engine(library: Path, model: Path) -> Iterator[Open]:
    """Open an engine of a kind for a number of threads and a batch size, alone on the machine."""
    opened: list[engines.Opened] = []

    def open_(kind: str, threads: int, batch: int) -> engines.Opened:
        if kind != engines.OURS and importlib.util.find_spec(kind.split("-")[0]) is None:
            pytest.skip(f"{kind} is not installed")
        path = library if kind == engines.OURS else model
        opened.append(engines.open_engine(kind, str(path), threads, batch))
        return opened[-1]

    yield open_
    for each in opened:
        if each.inside is not None:
            each.inside.close()
    opened.clear()
    quiet.wait()
