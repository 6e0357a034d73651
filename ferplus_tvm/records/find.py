"""Which tuning log a target gets: its own, or that of the nearest target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ferplus_tvm.host.gpu import capability_of
from ferplus_tvm.records.log import NAME, TuningLog, folder_of_logs
from ferplus_tvm.targets import GPUS, NAMED, ResolvedTarget, resolve


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
    return (*([] if given is None else [folder_of_logs(given)]), own(), shipped())


def find(folders: Sequence[Path], target: ResolvedTarget) -> TuningLog | None:
    """Return the log to use for a target: of the first folder that has a fitting one.

    In a folder, that is the target's own log, or the nearest: that of a named target whose code
    runs on this one and whose registers are the same, with the most features.  Its own has to fit
    too, since a virtual machine may hide what the CPU's name promises.  A log without a kept
    record, as of a tuning that was ended early, is passed over.

    Raises
    ------
    TuningLogError
        If the log is damaged or of another version.
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
    return (folder / NAME).is_file()
