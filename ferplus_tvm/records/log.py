"""Tuning logs: TVM's MetaSchedule databases under ``<folder>/<target>/``."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import TuningLogError, last_line
from ferplus_tvm.host.gpu import capability_of
from ferplus_tvm.kernels import specification
from ferplus_tvm.records import provenance
from ferplus_tvm.targets import GPUS, NAMED, ResolvedTarget, resolve
from ferplus_tvm.tuning.space import PREFIX, Config, Layer

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"


def shipped() -> Path:
    """Return the folder of the logs that the package carries."""
    package = Path(__file__).parents[1]
    packed = package / "tuning_logs"
    return packed if packed.is_dir() else package.parent / "tuning_logs"


def own() -> Path:
    """Return the folder of the user's own logs, whether or not it exists."""
    import platformdirs

    return Path(platformdirs.user_data_dir("ferplus_tvm", appauthor=False)) / "tuning_logs"


def search_path(given: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """Return the folders to look for logs in: one that was given, the user's own, the package's.

    Raises
    ------
    TuningLogError
        If the one given is not a folder.
    """
    return (*([] if given is None else [_folder(given)]), own(), shipped())


def _folder(logs: str | os.PathLike[str]) -> Path:
    if not Path(logs).is_dir():
        raise TuningLogError(
            f"{logs} is not a folder: expected the folder of tuning logs, with one folder "
            "per target in it"
        )
    return Path(logs)


def find(folders: Sequence[Path], target: ResolvedTarget) -> TuningLog | None:
    """Return the log to use for a target: its own, or the nearest, of the first folder with one.

    One that keeps no record yet, as of a tuning that was ended early, is passed over.

    The nearest is that of a named target whose code runs on this one and whose registers are the
    same, with the most features; its own has to fit too, since a virtual machine may hide what the
    CPU's name promises.

    Raises
    ------
    TuningLogError
        If the log cannot be read as a database.
    """
    for folder in folders:
        name = _best_name(folder, target)
        log = None if name is None else TuningLog(folder, name)
        if log is not None and any(layer.kept is not None for layer in log.layers):
            return log
    return None


def _best_name(folder: Path, target: ResolvedTarget) -> str | None:
    if target.gpu is not None:
        return _best_gpu(folder, target)
    if target.name not in NAMED and _holds_a_log(folder / target.name):
        return target.name
    fitting = [
        named
        for named in (resolve(name) for name in NAMED if _holds_a_log(folder / name))
        if _fits(named, target)
    ]
    if not fitting:
        return None
    return max(
        fitting, key=lambda named: (named.name == target.name, len(named.features), named.name)
    ).name


def _best_gpu(folder: Path, target: ResolvedTarget) -> str | None:
    """Return the log of a GPU itself, or of the nearest architecture of the same generation."""
    assert target.gpu is not None
    own = capability_of(target.gpu.arch)
    alike = {
        replace(target, name=f"cuda/{arch}").log: abs(capability_of(arch)[1] - own[1])
        for arch in GPUS
        if capability_of(arch)[0] == own[0]
    }
    there = [name for name in alike if _holds_a_log(folder / name)]
    return min(there, key=lambda name: alike[name], default=None)


def _fits(named: ResolvedTarget, target: ResolvedTarget) -> bool:
    ours, theirs = named.vector_unit, target.vector_unit
    same_registers = (ours.lanes, ours.registers) == (theirs.lanes, theirs.registers)
    return named.arch == target.arch and named.features <= target.features and same_registers


def _holds_a_log(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WORKLOADS, RECORDS, provenance.NAME))


class TuningLog:
    """The records of one target; an absent log has none.

    target
        the target that they were measured on.
    folder
        the folder that holds the files, whether or not they are there.
    provenance
        where they come from, or None.
    """

    def __init__(self, logs: str | os.PathLike[str], target: str) -> None:
        """Open the log of ``target`` in the folder ``logs``.

        Raises
        ------
        TuningLogError
            If ``logs`` is not a folder, or the files are not whole, or another TVM's.
        """
        self.target = target
        self.folder = _folder(logs) / target
        present = _holds_a_log(self.folder)
        self.provenance = provenance.read(self.folder) if present else None
        self._workloads: list[str] = []
        self._records: list[str] = []
        if self.provenance is not None:
            self._workloads = _lines(self.folder / WORKLOADS, self.provenance.workloads)
            self._records = _lines(self.folder / RECORDS, self.provenance.records)

    @property
    def layers(self) -> tuple[provenance.LayerResult, ...]:
        """What was found for each layer."""
        return self.provenance.layers if self.provenance is not None else ()

    def trials(self) -> list[Trial]:
        """Return every configuration that was tried, in order."""
        modules: dict[int, Any] = {}
        found = []
        for line in self._records:
            workload, content = json.loads(line)
            if workload not in modules:
                modules[workload] = self.workload(workload)
            record = self._record(content, modules[workload])
            seconds = None if record.run_secs is None else tuple(map(float, record.run_secs))
            found.append(Trial(workload, self._config(_apply(record)), seconds))
        return found

    def hashes(self) -> list[str]:
        """Return TVM's structural hash of each layer's specification, in order."""
        return [json.loads(line)[0] for line in self._workloads]

    def config(self, layer: Layer) -> Config | None:
        """Return the configuration that is kept for a layer, by its fields' names, or None."""
        from tvm import IRModule
        from tvm.target import Target

        if self._kept is None:
            return None
        module = IRModule({"main": specification.of(layer)})
        # The target makes no difference: the log is that of one.
        found = self._kept.query_schedule(module, Target("llvm"), "main")
        return None if found is None else self._config(found)

    @functools.cached_property
    def _kept(self) -> Any:
        """A database of the records that are kept, or None; only looking up needs it."""
        kept = [(layer.workload, layer.kept) for layer in self.layers if layer.kept is not None]
        if not kept:
            return None
        from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord

        database = MemoryDatabase(module_equality="structural")
        for position, line in kept:
            workload = database.commit_workload(self.workload(position).mod)
            record = self._record(json.loads(self._records[line])[1], workload)
            database.commit_tuning_record(
                TuningRecord(record.trace, workload, [0.0], record.target, record.args_info)
            )
        return database

    def workload(self, position: int) -> Any:
        """Return TVM's workload of a layer, by its line."""
        from tvm.s_tir.meta_schedule.database import Workload

        return self._read(Workload.from_json, json.loads(self._workloads[position]))

    def _record(self, content: Any, workload: Any) -> Any:
        from tvm.s_tir.meta_schedule.database import TuningRecord

        return self._read(TuningRecord.from_json, content, workload)

    def _read(self, reader: Any, *arguments: Any) -> Any:
        try:
            return reader(*arguments)
        except Exception as error:  # TVM raises several kinds
            reason = last_line(error).split(". ")[0]
            raise TuningLogError(
                f"the tuning log in {self.folder} cannot be read by this TVM ({reason}): tune "
                "again, or leave it out"
            ) from error

    def _config(self, schedule: Any) -> Config:
        annotations = schedule.get(schedule.get_sblock("root")).annotations
        config = {
            str(name).removeprefix(PREFIX): value
            for name, value in annotations.items()
            if str(name).startswith(PREFIX)
        }
        for name, value in config.items():
            if not isinstance(value, int):
                raise TuningLogError(
                    f"a record of the tuning log in {self.folder} has {name} = {value!r}: expected "
                    "a whole number; tune again, or leave it out"
                )
        return config


@dataclass(frozen=True)
class Trial:
    """One record.

    workload
        the line of its layer.
    seconds
        for each number of threads in the provenance, or None where it failed.  They compare
        between runs: those of the preset when it was first measured, times the paired ratios.
    """

    workload: int
    config: Config
    seconds: tuple[float, ...] | None


def _apply(record: Any) -> Any:
    from tvm import s_tir

    schedule = s_tir.Schedule(record.workload.mod)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    return schedule


def _lines(path: Path, part: provenance.Part) -> list[str]:
    return provenance.counted(path, part).decode().splitlines()
