"""From the start of a process to its first answer."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ferplus_tvm.bench import cold, engines


@pytest.mark.parametrize("kind", cold.PROGRAMS)
def test_first_answer(benchmark: Any, library: Path, model: Path, kind: str) -> None:
    """A new process each time: imports, loading, one face."""
    if kind != engines.OURS and importlib.util.find_spec(kind.split("-")[0]) is None:
        pytest.skip(f"{kind} is not installed")
    benchmark.group = "first answer of a new process"
    path = library if kind == engines.OURS else model
    benchmark.pedantic(cold.start, args=(kind, str(path), 1), rounds=10, warmup_rounds=1)
