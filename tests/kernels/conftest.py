"""The targets that kernels are compiled and run for, on this machine or by emulation.

By default a test runs for every vector unit that this machine has. What is marked ``spread`` runs
for one of them, each case for another than the one before: it varies the shapes of maps, which
kernels for all vector units loop over alike. Under emulation of another architecture the first
case of each test runs. All others are marked ``long``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ferplus_tvm import targets
from ferplus_tvm.host import cpu
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels import emulated

FOREIGN = "x86-64-v3" if cpu.architecture() == "aarch64" else "aarch64"
NAMES = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")
HERE = [name for name in NAMES if targets.resolve(name).runs_here]


def _registers(name: str) -> tuple[int, int, bool]:
    unit = targets.resolve(name).vector_unit
    return unit.lanes, unit.registers, unit.fp16


# This machine's CPU has the vector unit of one of those names, or else it is one more to test.
if _registers("native") not in [_registers(name) for name in HERE]:
    HERE.append("native")


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.emulated if name == FOREIGN else ())
        for name in dict.fromkeys([*NAMES, *HERE])
    ],
    scope="session",
)
def target(request: pytest.FixtureRequest) -> ResolvedTarget:
    resolved = targets.resolve(request.param)
    if request.param == FOREIGN:
        missing = emulated.reason_not_to(resolved.arch)
        if missing:
            pytest.skip(f"kernels for {request.param} are emulated here, which {missing}")
    elif request.param not in HERE:
        pytest.skip(f"this CPU has not the vector unit of {request.param}")
    return resolved


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    positions: Counter[tuple[str, str]] = Counter()
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != Path(__file__).parent:
            continue
        name = item.callspec.params.get("target") if hasattr(item, "callspec") else None
        if not isinstance(name, str):
            continue
        test = item.nodeid.partition("[")[0]
        position = positions[test, name]
        positions[test, name] += 1
        if name == FOREIGN:
            by_default = position == 0 and not getattr(item.obj, "is_hypothesis_test", False)
        else:
            # Each round begins one unit later, so that a value of a parameter meets all units.
            turn = (position + position // len(HERE)) % len(HERE)
            by_default = item.get_closest_marker("spread") is None or name == HERE[turn]
        if not by_default:
            item.add_marker(pytest.mark.long)
