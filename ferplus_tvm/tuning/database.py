"""Tuning logs: TVM's MetaSchedule databases under ``<folder>/<target>/``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import TuningLogError

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"


def shipped() -> Path:
    """Return the folder of the logs that the package carries."""
    package = Path(__file__).parents[1]
    packed = package / "tuning_logs"
    return packed if packed.is_dir() else package.parent / "tuning_logs"


class TuningLog:
    """The records of one target; an absent log has none.

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
        if not Path(logs).is_dir():
            raise TuningLogError(
                f"{logs} is not a folder: expected the folder of tuning logs, with one folder "
                "per target in it"
            )
        self.folder = Path(logs) / target
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
        from tvm.s_tir import meta_schedule

        try:
            return meta_schedule.database.JSONDatabase(
                *map(str, paths), allow_missing=False, module_equality="structural"
            )
        except Exception as error:  # TVM raises several kinds for a damaged file
            raise TuningLogError(
                f"the tuning log in {self.folder} cannot be read "
                f"({str(error).splitlines()[-1]}): copy it again, or leave it out"
            ) from error

    def schedule(self, module: Any, target: Any) -> Any:
        """Return the best recorded ``Schedule`` of an unscheduled module, or None."""
        # Asked first: a query writes workloads that it does not find into the log.
        if self._database is None or not self._database.has_workload(module):
            return None
        return self._database.query_schedule(module, target, "main")
