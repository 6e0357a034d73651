"""Every target that this machine can run, by itself or by emulation."""

from __future__ import annotations

import pytest

from ferplus_tvm import targets
from ferplus_tvm.host import cpu
from ferplus_tvm.targets import ResolvedTarget
from tests.kernels import emulated

FOREIGN = "x86-64-v3" if cpu.architecture() == "aarch64" else "aarch64"


@pytest.fixture(
    params=[
        "native",
        *(
            pytest.param(name, marks=pytest.mark.emulated if name == FOREIGN else ())
            for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64")
        ),
    ],
    scope="session",
)
def target(request: pytest.FixtureRequest) -> ResolvedTarget:
    resolved = targets.resolve(request.param)
    if request.param == FOREIGN:
        missing = emulated.reason_not_to(resolved.arch)
        if missing:
            pytest.skip(f"kernels for {request.param} are emulated here, which {missing}")
    elif not resolved.runs_here:
        pytest.skip(f"this CPU cannot run code for {request.param}")
    return resolved
