"""Writes tuning logs, as TVM's own database does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvm import IRModule, s_tir
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from ferplus_tvm.targets import resolve
from ferplus_tvm.tuning.database import RECORDS, WORKLOADS, annotate


def write_log(
    logs: Path, target: str, records: Iterable[tuple[Any, dict[str, int] | None]]
) -> None:
    """Write the log of a target: specifications with their configuration, or with none."""
    folder = logs / target
    folder.mkdir(parents=True)
    database = JSONDatabase(
        str(folder / WORKLOADS), str(folder / RECORDS), module_equality="structural"
    )
    for specification, config in records:
        module = IRModule({"main": specification})
        workload = database.commit_workload(module)
        if config is None:
            continue
        sch = s_tir.Schedule(module)
        annotate(sch, config)
        arguments = ArgInfo.from_prim_func(module["main"])
        database.commit_tuning_record(
            TuningRecord(sch.trace, workload, [0.001], resolve(target).tvm_target(), arguments)
        )
