"""Writes tuning logs, as a tuning does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.targets import resolve
from ferplus_tvm.tuning.journal import open_journal

TUNED = 0.001
"""The seconds that every record says."""


def write_log(
    logs: Path, target: str, records: Iterable[tuple[Conv | Dense, Config | None]]
) -> None:
    """Write the log of a target: layers with the configuration that is kept, or with none."""
    options = {"cpu": "a CPU", "threads": (1,), "command": "a test"}
    with open_journal(logs, resolve(target), **options) as journal:  # type: ignore[arg-type]
        for workload, config in records:
            entry = journal.entry(workload)
            if config is not None:
                journal.add(entry, [(config, [TUNED])])
                entry.kept = config
        journal.save()
