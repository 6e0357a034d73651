"""Compiling with tuning logs: what is said of them, and that the answers stay right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ferplus_tvm as fer
from ferplus_tvm import targets
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.importer import load_model
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.lowering.layers import layers_of
from ferplus_tvm.lowering.planner import plan
from tests.artifacts import assert_sentence
from tests.tuning.support import write_log

TARGET = "x86-64-v2" if targets.resolve("x86-64-v2").runs_here else "aarch64"


@pytest.fixture(scope="module")
def records(narrow_model: Path) -> dict[str, tuple[Any, Any]]:
    """By kernel: its layer, and a configuration that is not the preset."""
    backend = backend_of(targets.resolve(TARGET))
    layers = layers_of(load_model(narrow_model).proto)
    return {
        each.workload.name: (each.key, replace(each.config, vectors=1))
        for each in plan(layers, 1, backend, lambda workload: None)
        if backend.tunable(each.key, each.config)
    }


def test_every_kernel_with_a_record_is_tuned(
    narrow_model: Path, records: dict[str, Any], tmp_path: Path
) -> None:
    write_log(tmp_path / "logs", TARGET, records.values())
    result = fer.compile(
        narrow_model,
        TARGET,
        tmp_path / "m.so",
        [1],
        tuning_logs=tmp_path / "logs",
        require_tuned=True,
    )
    assert result.verified
    assert result.manifest.untuned == ()
    assert result.manifest.tuning_logs == TARGET
    assert all("vectors=1" in kernel.tiling for kernel in result.manifest.kernels)


def test_each_kernel_without_a_record_is_named(
    narrow_model: Path, records: dict[str, Any], tmp_path: Path
) -> None:
    missing = sorted(records)[0]
    write_log(tmp_path / "logs", TARGET, (r for name, r in records.items() if name != missing))
    options: Any = {"output": tmp_path / "m.so", "batch_sizes": [1], "target": TARGET}
    result = fer.compile(narrow_model, tuning_logs=tmp_path / "logs", **options)
    assert set(result.manifest.untuned) == {missing}
    result.path.unlink()
    with pytest.raises(TuningLogError) as caught:
        fer.compile(narrow_model, tuning_logs=tmp_path / "logs", require_tuned=True, **options)
    assert_sentence(str(caught.value))
    assert missing in str(caught.value) and TARGET in str(caught.value)
    assert not result.path.exists()


@pytest.mark.skipif(TARGET != "x86-64-v2", reason="there is one target for each level of x86 only")
def test_a_target_without_a_log_takes_the_nearest_and_says_so(
    narrow_model: Path, records: dict[str, Any], tmp_path: Path
) -> None:
    write_log(tmp_path / "logs", TARGET, records.values())
    nehalem = {"kind": "llvm", "mcpu": "nehalem"}
    result = fer.compile(
        narrow_model, nehalem, tmp_path / "m.so", [1], tuning_logs=tmp_path / "logs"
    )
    assert result.manifest.target == "custom"
    assert result.manifest.tuning_logs == TARGET
    assert result.manifest.untuned == ()
