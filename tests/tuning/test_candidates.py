"""What a device takes in: only what writes the right answer itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferplus_tvm import targets
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.workloads import Dense
from ferplus_tvm.tuning.address import Address
from ferplus_tvm.tuning.candidates import KernelCandidates
from ferplus_tvm.tuning.device_session import DeviceSession
from ferplus_tvm.tuning.task import LayerTask

BACKEND = backend_of(targets.resolve("native"))
OUTPUTS = 2 * BACKEND.channel_multiple
TASK = LayerTask(Dense(2, 64, OUTPUTS, OUTPUTS, relu=True), BACKEND)
CONFIG = BACKEND.choose(TASK.workload).config


@pytest.fixture
def admit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str | None]:
    """Take in a kernel that is a function of the operands."""
    session = DeviceSession(None, 1)
    kernels = KernelCandidates(session, TASK)

    def run(kernel: Callable[..., Any]) -> str | None:
        monkeypatch.setattr(session, "load", lambda path: {"kernel0": kernel})
        return kernels.admit(Path("kernel.so"), CONFIG)

    return run


def right(*operands: Any) -> None:
    operands[-1].copyfrom(TASK.expected().astype(np.float32))


def test_a_kernel_that_writes_nothing_does_not_pass_for_the_one_before(
    admit: Callable[[Callable[..., Any]], str | None],
) -> None:
    assert admit(right) is None
    assert "off" in str(admit(lambda *operands: None))
    assert admit(right) is None


def test_a_kernel_that_leaves_one_value_out_is_refused(
    admit: Callable[[Callable[..., Any]], str | None],
) -> None:
    def almost(*operands: Any) -> None:
        answer = TASK.expected().astype(np.float32)
        answer[-1, -1] = operands[-1].numpy()[-1, -1]
        operands[-1].copyfrom(answer)

    assert admit(right) is None
    assert "off" in str(admit(almost))


@pytest.mark.parametrize("text", ["", "host", "host:1", "host:x/key", ":1/key", "host:1/", "h:0/k"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected tracker:port/key"):
        Address.parse(text)


def test_an_address_has_a_host_a_port_and_a_key() -> None:
    address = Address.parse("fe80::1:9190/pi/4")
    assert (address.host, address.port, address.key) == ("fe80::1", 9190, "pi/4")
