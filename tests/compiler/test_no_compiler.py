"""Without a C compiler nothing is begun: no stage, no process, no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ferplus_tvm as fer
from ferplus_tvm.cli import app
from ferplus_tvm.compiler import isolated, pipeline
from ferplus_tvm.errors import LinkerError
from ferplus_tvm.toolchain import link
from ferplus_tvm.tuning import tune as tuning
from tests.artifacts import assert_sentence

ABSENT = "no such model.onnx"  # which would be told if anything was begun


@pytest.fixture(autouse=True)
def nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        pytest.fail("something was begun")

    monkeypatch.setattr(link, "find_linker", lambda triple: None)
    monkeypatch.setattr(isolated, "Child", fail)
    monkeypatch.setattr(pipeline, "import_model", fail)
    monkeypatch.setattr(tuning, "import_model", fail)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"isolated": True},
        {"with_runtime": True},
        {"target": "aarch64", "isolated": True},
        {"target": "native,x86-64-v2"},
        {"strict": True, "labels": "fer2013"},
    ],
    ids=str,
)
def test_it_is_told_before_a_compilation_begins(options: dict[str, Any], tmp_path: Path) -> None:
    stages: list[str] = []

    with pytest.raises(LinkerError) as caught:
        fer.compile(ABSENT, output=tmp_path / "x.so", progress=stages.append, **options)

    assert_sentence(str(caught.value), "no C or C++ compiler", "install", "ziglang")
    assert stages == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "run",
    [
        lambda: fer.tune(ABSENT, "native", time_limit=60),
        lambda: CliRunner().invoke(app, ["demo"], catch_exceptions=False),
        lambda: CliRunner().invoke(app, ["compile", ABSENT], catch_exceptions=False),
    ],
    ids=["tune", "demo", "command"],
)
def test_it_is_told_first_by_whatever_compiles(run: Callable[[], object]) -> None:
    with pytest.raises(LinkerError, match="no C or C"):
        run()
