"""Every target that this machine can run."""

from __future__ import annotations

import pytest

from ferplus_tvm import targets
from ferplus_tvm.targets import ResolvedTarget


@pytest.fixture(
    params=["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"], scope="session"
)
def target(request: pytest.FixtureRequest) -> ResolvedTarget:
    resolved = targets.resolve(request.param)
    if not resolved.runs_here:
        pytest.skip(f"this CPU cannot run code for {request.param}")
    return resolved
