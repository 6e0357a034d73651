"""A tuning log that grows: what is tried is added, and nothing is ever half-written.

Beside the log's ``records.jsonl``, which is all that a compilation reads, the target's folder gets
``trials.jsonl``: one line for every configuration that was tried.  It only grows; a last line that
was never finished is dropped.  One process at a time writes to a log; the lock dies with its owner.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ferplus_tvm._version import __version__
from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Backend, Config
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.records import log
from ferplus_tvm.records.codec import canonical, decode, encode, workload_of
from ferplus_tvm.records.log import Gain, LayerRecord, Measured, Provenance, TuningLog
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.tuning.trials import TRIALS, TrialsFile, read_trials

_DIGITS = 5  # of seconds, which the clock's noise leaves


@dataclass
class Entry:
    """A layer in the log.

    Attributes
    ----------
    trials
        The seconds of every configuration that was tried, for each number of threads, or None where
        it failed; in the order in which they were tried.  Seconds compare between runs: they are
        those of the preset when it was first measured, times the paired ratios.
    preset, leader, kept
        As of `LayerRecord`.
    lost, lost_failed
        How many more were tried, and failed, in runs whose trials are not at hand.
    """

    workload: Conv | Dense
    trials: dict[Config, tuple[float, ...] | None] = field(default_factory=dict)
    preset: Config | None = None
    leader: Config | None = None
    kept: Config | None = None
    lost: int = 0
    lost_failed: int = 0

    @property
    def used(self) -> Config | None:
        """What a compilation uses, which is the preset where none is kept."""
        return self.preset if self.kept is None else self.kept

    @property
    def failed(self) -> int:
        """How many of the trials failed."""
        return sum(seconds is None for seconds in self.trials.values())

    def seconds(self, config: Config | None) -> tuple[float, ...] | None:
        """Return the seconds of a configuration, or None where it has none."""
        return None if config is None else self.trials.get(config)

    def record(self) -> LayerRecord:
        """Return what the log keeps of it."""
        return LayerRecord(
            self.workload,
            preset=self._measured(self.preset),
            leader=self._measured(self.leader),
            kept=self._measured(self.kept),
            tried=len(self.trials) + self.lost,
            failed=self.failed + self.lost_failed,
        )

    def _measured(self, config: Config | None) -> Measured | None:
        seconds = self.seconds(config)
        if config is None or seconds is None:
            return None
        return Measured(encode(config), seconds)


class Journal:
    """The log of one target, open for writing."""

    def __init__(self, logs: Path, target: ResolvedTarget, provenance: Provenance) -> None:
        """Open the log that `open_journal` has locked, and drop what was never finished."""
        self.target = target
        self.folder = logs / target.log
        opened = TuningLog(logs, target.log)
        self.provenance = _continue(opened, provenance)
        backend = backend_of(target)
        self._entries = {canonical(each.workload): _entry(each, backend) for each in opened.layers}
        for values in read_trials(self.folder):
            self._remember(values, backend)
        self._file = TrialsFile(self.folder / TRIALS)
        for each in opened.layers:
            entry = self._entries[canonical(each.workload)]
            entry.lost = max(0, each.tried - len(entry.trials))
            entry.lost_failed = max(0, each.failed - entry.failed)
        if opened.provenance is None:
            log.write(self.folder, self.provenance, [])

    def entry(self, workload: Conv | Dense) -> Entry:
        """Return what is known of a layer, which is added if it is new."""
        return self._entries.setdefault(canonical(workload), Entry(workload))

    def add(self, entry: Entry, trials: Iterable[tuple[Config, Sequence[float] | None]]) -> None:
        """Add what was tried, with the seconds for each number of threads, or None if it failed."""
        for config, seconds in trials:
            taken = None if seconds is None else tuple(map(_rounded, seconds))
            entry.trials[config] = taken
            self._file.append(
                {"workload": entry.workload.key, "config": encode(config), "seconds": taken}
            )

    def save(self, gains: Iterable[Gain] | None = None) -> None:
        """Have everything that was added count."""
        with _writing(self.folder):
            self._file.sync()
            if gains is not None:
                self.provenance = replace(self.provenance, gains=tuple(gains))
            records = [entry.record() for entry in self._entries.values()]
            log.write(self.folder, self.provenance, records)

    def close(self) -> None:
        """Close the file; what was added and not saved never was."""
        self._file.close()

    def _remember(self, values: dict[str, Any], backend: Backend) -> None:
        try:
            workload = workload_of(values["workload"])
            config = decode(values["config"], workload, backend)
            seconds = values["seconds"]
            self.entry(workload).trials[config] = None if seconds is None else tuple(seconds)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise log.damaged(
                self.folder / TRIALS, f"a line is not of its format: {error}"
            ) from None


def _entry(record: LayerRecord, backend: Backend) -> Entry:
    entry = Entry(record.workload)
    for which in ("preset", "leader", "kept"):
        measured: Measured | None = getattr(record, which)
        if measured is not None:
            config = decode(measured.config, record.workload, backend)
            entry.trials[config] = measured.seconds
            setattr(entry, which, config)
    return entry


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS - 1}e}")


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
    provenance = Provenance(
        target=target.log,
        target_config=target.config,
        cpu=cpu,
        threads=tuple(threads),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        command=command,
        created_with=f"ferplus_tvm {__version__}",
        tvm_version=importlib.metadata.version("apache-tvm"),
    )
    path = Path(logs)
    folder = path / target.log
    lock = FileLock(
        path / f".{target.log.replace('/', '-')}.lock",
        blocking=False,
        fallback_to_soft=False,  # a soft lock outlives a process that was killed
    )

    with ExitStack() as held:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock)
            except Timeout:
                raise TuningLogError(
                    f"another process is tuning into {folder}: wait for it, or give another "
                    "--log-dir"
                ) from None
            journal = Journal(path, target, provenance)
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


def _continue(opened: TuningLog, provenance: Provenance) -> Provenance:
    """Return the provenance to go on with: this run's, over what is there already."""
    old = opened.provenance
    if old is None:
        return provenance
    for what, theirs, ours in (
        ("for the target", _without_triple(old), _without_triple(provenance)),
        ("on the CPU", old.cpu, provenance.cpu),
        ("for the numbers of threads", list(old.threads), list(provenance.threads)),
    ):
        if theirs != ours:
            raise TuningLogError(
                f"the tuning log in {opened.folder} was measured {what} {theirs}, but this is "
                f"{ours}: give another --log-dir"
            )
    return replace(provenance, gains=old.gains)


def _without_triple(provenance: Provenance) -> dict[str, Any]:
    """Return the target but for its triple, which may be spelt in several ways."""
    return {name: value for name, value in provenance.target_config.items() if name != "mtriple"}
