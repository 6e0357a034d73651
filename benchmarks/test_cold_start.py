"""From the start of a process to its first answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ferplus_tvm.bench.engines.catalog import CPU_KINDS
from ferplus_tvm.bench.engines.opened import OURS
from ferplus_tvm.bench.timing import cold_start


@pytest.mark.parametrize("kind", cold_start.PROGRAMS)
def test_first_answer(benchmark: Any, library: Path, model: Path, kind: str) -> None:
    """A new process each time: imports, loading, one face."""
    module = CPU_KINDS[kind].module
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{kind} is not installed")
    benchmark.group = "first answer of a new process"
    path = library if kind == OURS else model
    benchmark.pedantic(cold_start.start, args=(kind, str(path), 1), rounds=10, warmup_rounds=1)
