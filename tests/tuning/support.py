"""Writes tuning logs, as a tuning does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ferplus_tvm.records.provenance import Part
from ferplus_tvm.tuning.gpu import GpuSpace

from ferplus_tvm.records import provenance
from ferplus_tvm.records.log import RECORDS, WORKLOADS
from ferplus_tvm.targets import resolve
from ferplus_tvm.tuning.journal import open_journal
from ferplus_tvm.tuning.space import Config, CpuSpace, Layer

TUNED = 0.001
"""The seconds that every record says."""


def write_log(logs: Path, target: str, records: Iterable[tuple[Layer, Config | None]]) -> None:
    """Write the log of a target: layers with the configuration that is kept, or with none."""
    resolved = resolve(target)
    gpu = resolved.gpu
    with open_journal(logs, resolved, cpu="a CPU", threads=(1,), command="a test") as journal:
        for layer, config in records:
            entry = journal.entry(layer)
            if config is not None:
                space = (
                    CpuSpace(layer, resolved.vector_unit)
                    if gpu is None
                    else GpuSpace(layer, gpu, "float32")
                )
                journal.add(entry, space, [(config, [TUNED])])
                journal.note(entry, "kept", entry.line_of(config))
        journal.save()


def alter(folder: Path, name: str, change: Callable[[str], str]) -> None:
    """Change the text of a file of a log, and make the log whole again."""
    state = provenance.read(folder)
    text = (folder / name).read_text()
    assert change(text) != text
    (folder / name).write_text(change(text))
    parts = {"workloads": _whole(folder / WORKLOADS), "records": _whole(folder / RECORDS)}
    replace(state, **parts).write(folder)


def _whole(path: Path) -> Part:
    content = path.read_bytes()
    return Part(len(content), hashlib.sha256(content).hexdigest())
