"""From the start of a process to its first answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.bench.engines.catalog import CPU_KINDS
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.timing import cold_start


@pytest.mark.parametrize("kind", cold_start.PROGRAMS)
def test_first_answer(
    benchmark: Any, library: Path, manifest: Manifest, model: Path, kind: str
) -> None:
    """A new process each time: imports, loading, one face."""
    module = CPU_KINDS[kind].module
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{kind} is not installed")
    benchmark.group = "first answer of a new process"
    path = library if kind == OURS else model
    program = cold_start.Program(kind, kind, str(path), manifest.face_shape)
    benchmark.pedantic(cold_start.start, args=(program, 1), rounds=10, warmup_rounds=1)
