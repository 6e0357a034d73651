"""Two compilations in two threads of one process, stage by stage at the same time."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
from tvm import relax

import ferplus_tvm as fer
from ferplus_tvm.compiler import pipeline
from tests.chains import Chain

VARIABLE = "TVM_COMPILE_FORCE_FALLBACK"


@pytest.fixture
def slow_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have TVM's builder of Relax functions take its time, so that threads meet in it."""
    emit = relax.BlockBuilder.emit

    def slowly(self: relax.BlockBuilder, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.02)
        return emit(self, *arguments, **options)

    monkeypatch.setattr(relax.BlockBuilder, "emit", slowly)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    chain = Chain().conv("a", 8).relu("r").pool("p").conv("b", 4).relu("s").flatten().dense("d")
    onnx.save(chain.model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_two_at_once_make_what_each_makes_alone(
    model: Path, tmp_path: Path, slow_builder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    # What is made is compared below with what one thread makes, and that is verified elsewhere.
    monkeypatch.setattr(pipeline, "_verified", lambda *_: None)
    sizes = {"one.so": (1, 2), "other.so": (3, 4)}
    together = threading.Barrier(len(sizes), timeout=120)

    def wait(stage: str) -> None:
        together.wait()

    def compile(name: str) -> bytes:
        try:
            output = tmp_path / name
            fer.compile(model, output=output, batch_sizes=sizes[name], progress=wait)
            return output.read_bytes()
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(len(sizes)) as pool:
        made = dict(zip(sizes, pool.map(compile, sizes), strict=True))

    assert os.environ.get(VARIABLE) == "0"
    for name, content in made.items():
        alone = fer.compile(model, output=tmp_path / f"alone-{name}", batch_sizes=sizes[name])
        assert alone.path.read_bytes() == content
