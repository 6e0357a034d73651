"""A tuning log that grows: what is tried is added, and nothing is ever half-written.

One process at a time writes to a log; the lock dies with its owner.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.metadata
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ferplus_tvm._version import __version__
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.host.lock import exclusive
from ferplus_tvm.kernels import specification
from ferplus_tvm.records import provenance
from ferplus_tvm.records.log import RECORDS, WORKLOADS, Trial, TuningLog
from ferplus_tvm.records.provenance import Gain, LayerResult, Part, Provenance
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.tuning.space import Config, Layer, Space


@dataclass
class Entry:
    """A layer in the log.

    trials
        by the line of their record.
    """

    result: LayerResult
    workload: Any
    trials: dict[int, Trial] = field(default_factory=dict)

    def line_of(self, config: Config) -> int | None:
        """Return the record of a configuration, or None if it was not tried yet."""
        return next((line for line, trial in self.trials.items() if trial.config == config), None)

    def config(self, line: int | None) -> Config | None:
        """Return the configuration of a record."""
        return None if line is None else self.trials[line].config


class Journal:
    """The log of one target, open for writing."""

    def __init__(self, logs: Path, target: ResolvedTarget, state: Provenance) -> None:
        """Open the log that `open_journal` has locked, and drop what was never finished."""
        self.target = target
        self.folder = logs / target.log
        log = TuningLog(logs, target.log)
        self._provenance = _continue(log, state)
        if log.provenance is None:
            self._provenance.write(self.folder)
        self._files = {name: _File(self.folder / name, part) for name, part in self._parts()}
        self._entries: list[Entry] = []
        self._by_hash = {shash: at for at, shash in enumerate(log.hashes())}
        self._lines = 0
        for result in log.layers:
            self._entries.append(Entry(result, log.workload(result.workload)))
        for trial in log.trials():
            self._entries[trial.workload].trials[self._lines] = trial
            self._lines += 1

    @property
    def provenance(self) -> Provenance:
        """What the log says of itself, as saved last."""
        return self._provenance

    def entry(self, layer: Layer) -> Entry:
        """Return what is known of a layer, which is added if it is new."""
        from tvm import IRModule
        from tvm.s_tir.meta_schedule.database import Workload

        workload = Workload(IRModule({"main": specification.of(layer)}))
        shash, module = workload.as_json()
        if shash not in self._by_hash:
            at = len(self._entries)
            self._files[WORKLOADS].append([[shash, _compact(module)]])
            self._entries.append(Entry(LayerResult(layer.name, at), workload))
            self._by_hash[shash] = at
        return self._entries[self._by_hash[shash]]

    def add(
        self, entry: Entry, space: Space, trials: Iterable[tuple[Config, Sequence[float] | None]]
    ) -> None:
        """Add what was tried, with the seconds for each number of threads, or None if it failed."""
        from tvm.s_tir.meta_schedule.arg_info import ArgInfo
        from tvm.s_tir.meta_schedule.database import TuningRecord

        target = self.target.tvm_target()
        lines = []
        for config, seconds in trials:
            schedule = space.schedule(config)
            arguments = ArgInfo.from_prim_func(schedule.mod["main"])
            record = TuningRecord(
                schedule.trace,
                entry.workload,
                None if seconds is None else list(seconds),
                target,
                arguments,
            )
            lines.append([entry.result.workload, record.as_json()])
            taken = None if seconds is None else tuple(seconds)
            entry.trials[self._lines] = Trial(entry.result.workload, config, taken)
            self._lines += 1
        self._files[RECORDS].append(lines)

    def note(
        self, entry: Entry, which: Literal["preset", "leader", "kept"], line: int | None
    ) -> None:
        """Say which record is a layer's preset, leader, or kept one."""
        changed: dict[str, Any] = {which: line}
        entry.result = replace(entry.result, **changed)

    def save(self, gains: Iterable[Gain] | None = None) -> None:
        """Have everything that was added count."""
        with _writing(self.folder):
            self._save(gains)

    def _save(self, gains: Iterable[Gain] | None) -> None:
        for file in self._files.values():
            file.sync()
        self._provenance = replace(
            self._provenance,
            workloads=self._files[WORKLOADS].part,
            records=self._files[RECORDS].part,
            layers=tuple(entry.result for entry in self._entries),
            gains=self._provenance.gains if gains is None else tuple(gains),
        )
        self._provenance.write(self.folder)

    def close(self) -> None:
        """Close the files; what was added and not saved never was."""
        for file in self._files.values():
            file.close()

    def _parts(self) -> list[tuple[str, Part]]:
        return [(WORKLOADS, self._provenance.workloads), (RECORDS, self._provenance.records)]


@contextmanager
def open_journal(
    logs: str | os.PathLike[str],
    target: ResolvedTarget,
    *,
    cpu: str,
    threads: Sequence[int],
    command: str,
) -> Iterator[Journal]:
    """Open the log of a target in the folder ``logs``, both of which are made where needed.

    Raises
    ------
    TuningLogError
        If another process writes to it, it is damaged, or was measured on another CPU or with
        other numbers of threads, or the folder cannot be written to.
    """
    state = Provenance(
        target=target.log,
        target_config=target.config,
        cpu=cpu,
        threads=tuple(threads),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=command,
        created_with=f"ferplus_tvm {__version__}",
        tvm_version=provenance.tvm_version(),
        tvm_ffi_version=importlib.metadata.version("apache-tvm-ffi"),
    )
    path = Path(logs)
    folder = path / target.log

    def refuse() -> None:
        raise TuningLogError(
            f"another process is tuning into {folder}: wait for it, or give another --log-dir"
        )

    with ExitStack() as held:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(path / f".{target.log.replace('/', '-')}.lock", refuse))
            journal = Journal(path, target, state)
        held.callback(journal.close)
        yield journal


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TuningLogError(
            f"the tuning log in {folder} cannot be written to ({error.strerror or error}): make "
            "room, or give another --log-dir"
        ) from error


def _continue(log: TuningLog, state: Provenance) -> Provenance:
    """Return the provenance to go on with: this run's, over what is there already."""
    old = log.provenance
    if old is None:
        return state
    for what, theirs, ours in (
        ("for the target", _without_triple(old), _without_triple(state)),
        ("on the CPU", old.cpu, state.cpu),
        ("for the numbers of threads", list(old.threads), list(state.threads)),
    ):
        if theirs != ours:
            raise TuningLogError(
                f"the tuning log in {log.folder} was measured {what} {theirs}, but this is {ours}: "
                "give another --log-dir"
            )
    return replace(
        state,
        workloads=old.workloads,
        records=old.records,
        layers=old.layers,
        gains=old.gains,
    )


def _without_triple(state: Provenance) -> dict[str, Any]:
    """Return the target but for its triple, which may be spelt in several ways."""
    return {name: value for name, value in state.target_config.items() if name != "mtriple"}


class _File:
    """A file of JSON lines that only grows, and the checksum of all that is in it."""

    def __init__(self, path: Path, part: Part) -> None:
        content = provenance.counted(path, part) if part.bytes else b""
        self._hash = hashlib.sha256(content)
        self._size = len(content)
        self._file = path.open("ab", buffering=0)
        self._file.truncate(self._size)
        self._added = bytearray()

    def append(self, values: Iterable[Any]) -> None:
        """Add lines."""
        text = "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values)
        self._added += text.encode()

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
        self._hash.update(self._added)
        self._size += len(self._added)
        self._added.clear()

    def close(self) -> None:
        """Close it."""
        self._file.close()

    @property
    def part(self) -> Part:
        """All of it."""
        return Part(self._size, self._hash.hexdigest())


def _compact(module: str) -> str:
    """Return TVM's text of a module without the blanks, which are half of it.

    It is base64 of a length of eight bytes and JSON.
    """
    content = json.loads(base64.b64decode(module)[8:])
    text = json.dumps(content, separators=(",", ":")).encode()
    return base64.b64encode(struct.pack("<Q", len(text)) + text).decode()
