"""Tuning logs: TVM's MetaSchedule databases under ``<folder>/<target>/``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.targets import NAMED, ResolvedTarget, resolve

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
_PREFIX = "ferplus_tvm."


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

    The nearest is that of a named target whose code runs on this one and whose registers are the
    same, with the most features; its own has to fit too, since a virtual machine may hide what the
    CPU's name promises.

    Raises
    ------
    TuningLogError
        If the log cannot be read as a database.
    """
    for folder in folders:
        if target.name not in NAMED and _holds_a_log(folder / target.name):
            return TuningLog(folder, target.name)
        fitting = [
            named
            for named in (resolve(name) for name in NAMED if _holds_a_log(folder / name))
            if _fits(named, target)
        ]
        if fitting:
            nearest = max(
                fitting,
                key=lambda named: (named.name == target.name, len(named.features), named.name),
            )
            return TuningLog(folder, nearest.name)
    return None


def _fits(named: ResolvedTarget, target: ResolvedTarget) -> bool:
    ours, theirs = named.vector_unit, target.vector_unit
    same_registers = (ours.lanes, ours.registers) == (theirs.lanes, theirs.registers)
    return named.arch == target.arch and named.features <= target.features and same_registers


def _holds_a_log(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WORKLOADS, RECORDS))


class TuningLog:
    """The records of one target; an absent log has none.

    target
        the target that they were measured on.
    folder
        the folder that holds the two files, whether or not they are there.
    """

    def __init__(self, logs: str | os.PathLike[str], target: str) -> None:
        """Open the log of ``target`` in the folder ``logs``.

        Raises
        ------
        TuningLogError
            If ``logs`` is not a folder, or the files cannot be read as a database.
        """
        self.target = target
        self.folder = _folder(logs) / target
        self._database = self._open()

    def _open(self) -> Any:
        paths = [self.folder / WORKLOADS, self.folder / RECORDS]
        present = [path.is_file() for path in paths]
        if not any(present):
            return None
        if not all(present):
            raise TuningLogError(
                f"{self.folder} holds only one of {WORKLOADS} and {RECORDS}: expected both; copy "
                "the folder again"
            )
        # TVM's reader takes some damage for null pointers, and the process with it.
        _check_lines(paths[0], _is_workload)
        _check_lines(paths[1], _is_record)
        from tvm.s_tir import meta_schedule

        try:
            return meta_schedule.database.JSONDatabase(
                *map(str, paths), allow_missing=False, module_equality="structural"
            )
        except Exception as error:  # TVM raises several kinds for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[-1]
            raise TuningLogError(
                f"the tuning log in {self.folder} cannot be read ({reason}): copy it again, or "
                "leave it out"
            ) from error

    def config(self, specification: Any, target: Any) -> dict[str, int] | None:
        """Return the best recorded configuration of a layer, by its fields' names, or None.

        ``specification`` is one of `ferplus_tvm.kernels.specification`.
        """
        from tvm import IRModule

        if self._database is None:
            return None
        module = IRModule({"main": specification})
        found = self._database.query_schedule(module, target, "main")
        if found is None:
            return None
        annotations = found.get(found.get_sblock("root")).annotations
        config = {
            str(name).removeprefix(_PREFIX): value
            for name, value in annotations.items()
            if str(name).startswith(_PREFIX)
        }
        for name, value in config.items():
            if not isinstance(value, int):
                raise TuningLogError(
                    f"a record of the tuning log in {self.folder} has {name} = {value!r}: expected "
                    "a whole number; copy it again, or leave it out"
                )
        return config


def annotate(sch: Any, config: dict[str, int]) -> None:
    """Have a schedule of a specification say how the layer is to be computed.

    The values are annotations of the root block, so that records are traces of TVM's own kind.
    """
    root = sch.get_sblock("root")
    for name, value in config.items():
        sch.annotate(root, _PREFIX + name, value)


def _check_lines(path: Path, fits: Callable[[Any], bool]) -> None:
    """Check that every line is JSON of the shape that TVM writes."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TuningLogError(
            f"the tuning log {path} cannot be read ({error}): copy it again, or leave it out"
        ) from error
    for number, line in enumerate(lines, 1):
        try:
            whole = fits(json.loads(line))
        except (ValueError, RecursionError):
            whole = False
        if not whole:
            raise TuningLogError(
                f"line {number} of the tuning log {path} is cut or altered: copy it again, or "
                "leave it out"
            )


def _is_workload(line: Any) -> bool:
    """Recognise [hash, module]."""
    return isinstance(line, list) and [type(part) for part in line] == [str, str]


def _is_record(line: Any) -> bool:
    """Recognise [workload, [[instructions, decisions], seconds, target, arguments]]."""
    match line:
        case [int(), [[list(), list()], list() | None, dict() | None, list() | None]]:
            return True
    return False
