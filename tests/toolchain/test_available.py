from __future__ import annotations

import pytest

from ferplus_tvm.targets import GPUS, NAMED
from ferplus_tvm.toolchain import available
from ferplus_tvm.toolchain.available import list_targets


def test_every_named_target_is_listed_with_the_hardware_it_is_for() -> None:
    listed = {each.name: each for each in list_targets()}

    assert list(listed)[: 1 + len(NAMED)] == ["native", *NAMED]
    assert [name for name in listed if name.startswith("cuda/")] == [f"cuda/{a}" for a in GPUS]
    assert listed["native"].target.runs_here
    assert listed["native"].target.name in listed["native"].hardware
    assert "Raspberry Pi 5" in listed["cortex-a76"].hardware
    assert "H100" in listed["cuda/sm_90"].hardware


def test_what_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cross_linker(triple: str) -> list[str] | None:
        return None if "aarch64" in triple else ["cc"]

    monkeypatch.setattr(available, "find_linker", no_cross_linker)
    monkeypatch.setattr(available, "missing_compiler", lambda: "install CUDA's toolkit")
    listed = {each.name: each for each in list_targets()}

    assert listed["x86-64-v3"].linker == ["cc"]
    assert listed["x86-64-v3"].missing == ()
    assert listed["cortex-a76"].linker is None
    assert "install" in listed["cortex-a76"].missing[0]
    assert "install CUDA's toolkit" in listed["cuda/sm_90"].missing
