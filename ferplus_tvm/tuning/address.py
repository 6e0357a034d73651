"""The address of devices behind TVM's RPC tracker."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ferplus_tvm.errors import DeviceError


@dataclass(frozen=True)
class Address:
    """The devices that an RPC tracker has under a key."""

    host: str
    port: int
    key: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``tracker:port/key``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        place, _, key = text.partition("/")
        host, _, port = place.rpartition(":")
        if not (host and key and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise ValueError(f"{text!r} is no RPC address: expected tracker:port/key")
        return cls(host, int(port), key)

    def expect_tracker(self) -> None:
        """See that something listens; TVM itself would try for a minute.

        Raises
        ------
        DeviceError
            If nothing does.
        """
        try:
            socket.create_connection((self.host, self.port), timeout=5).close()
        except OSError:
            raise DeviceError(
                f"there is no RPC tracker at {self.host}:{self.port}: start one with 'python -m "
                "tvm.exec.rpc_tracker'"
            ) from None
