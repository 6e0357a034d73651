"""All that a tuning has tried: ``trials.jsonl`` beside a target's log, one line a configuration.

The file only grows, and a last line that was never finished is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ferplus_tvm.records import log

TRIALS = "trials.jsonl"
"""The file of all that was tried, in a target's folder."""


def read_trials(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a target's trials; of a log without them, as the package's, none.

    Raises
    ------
    TuningLogError
        If a line is damaged.
    """
    path = folder / TRIALS
    for number, line in enumerate(_whole_lines(path).splitlines(), start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            raise log.damaged(path, f"line {number} is cut or altered") from None
        yield values


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


class TrialsFile:
    """A file of JSON lines that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = len(_whole_lines(path))
        self._file = path.open("ab", buffering=0)
        self._file.truncate(self._size)
        self._added = bytearray()

    def append(self, values: dict[str, Any]) -> None:
        """Add a line."""
        self._added += (json.dumps(values, separators=(",", ":")) + "\n").encode()

    def sync(self) -> None:
        """See what was added on the disk; where that fails, the file is as it was before."""
        try:
            left = memoryview(bytes(self._added))
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(self._added)
        self._added.clear()

    def close(self) -> None:
        """Close it."""
        self._file.close()
