"""The tuning log of a target: ``records.jsonl``, JSON Lines.

The first line, the header, says where the records come from (`Provenance`), the version of the
space of configurations, how many layers follow, and the SHA-256 of all of it.  Each other line is a
layer (`LayerRecord`), kept under its workload.  The file is replaced as a whole, so a log is as it
was before or as it is after, whatever is interrupted.  It holds no TVM objects: it stays valid with
another TVM, as long as `SPACE_VERSION` is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.host import files
from ferplus_tvm.kernels.backend import SPACE_VERSION, Backend, Config
from ferplus_tvm.kernels.workloads import Conv, Dense
from ferplus_tvm.records.codec import Record, canonical, decode_candidate, workload_of

NAME = "records.jsonl"
"""The file in a target's folder."""

_FORMAT = 2


@dataclass(frozen=True)
class Measured:
    """A configuration, and the seconds that it took for each number of threads of the log."""

    config: Record
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class LayerRecord:
    """What was found for a layer.

    Attributes
    ----------
    preset
        The configuration that is used untuned.
    leader
        The one that was fastest by more than the noise, with the layer on its own.
    kept
        The one that a compilation uses: a leader that did not make the whole network slower.
    tried, failed
        How many configurations were tried, and how many of them did not run or were wrong.
    """

    workload: Conv | Dense
    preset: Measured | None = None
    leader: Measured | None = None
    kept: Measured | None = None
    tried: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Gain:
    """The whole network's time with presets over its time with the records kept.

    Attributes
    ----------
    noise
        How far off 1 the ratio may be and mean nothing.
    """

    batch: int
    threads: int
    ratio: float
    noise: float


@dataclass(frozen=True)
class Provenance:
    """Where the records come from.

    Attributes
    ----------
    cpu
        The name of the CPU or GPU that they were measured on, or of the devices' RPC key.
    threads
        The numbers of threads that each configuration's seconds are for, in order.
    date
        The last run's, as YYYY-MM-DD.
    command
        The last run's command line, without paths and hosts.
    tvm_version
        The TVM that compiled what was measured; another one may read the log.
    """

    target: str
    target_config: dict[str, Any]
    cpu: str
    threads: tuple[int, ...]
    date: str
    command: str
    created_with: str
    tvm_version: str
    gains: tuple[Gain, ...] = ()


class TuningLog:
    """The records of one target; an absent log has none.

    Attributes
    ----------
    target
        The target that they were measured on.
    folder
        The target's folder, whether or not it exists.
    provenance
        Where the records come from, or None.
    layers
        What was found for each layer.
    """

    def __init__(self, logs: str | os.PathLike[str], target: str) -> None:
        """Read the log of ``target`` in the folder ``logs``.

        Raises
        ------
        TuningLogError
            If ``logs`` is not a folder, or the log is damaged or of another version.
        """
        self.target = target
        self.folder = folder_of_logs(logs) / target
        self.provenance: Provenance | None = None
        self.layers: tuple[LayerRecord, ...] = ()
        path = self.folder / NAME
        if path.is_file():
            self.provenance, self.layers = _read(path)
        self._by_key = {canonical(layer.workload): layer for layer in self.layers}

    def config(self, w: Conv | Dense, backend: Backend) -> Config | None:
        """Return the configuration that is kept for a workload, or None.

        Raises
        ------
        TuningLogError
            If it is not one of the kernels for the workload.
        """
        layer = self._by_key.get(canonical(w))
        if layer is None or layer.kept is None:
            return None
        return decode_candidate(layer.kept.config, w, backend)


def folder_of_logs(logs: str | os.PathLike[str]) -> Path:
    """Return the folder of tuning logs, which has to be one.

    Raises
    ------
    TuningLogError
        If it is not.
    """
    if not Path(logs).is_dir():
        raise TuningLogError(
            f"{logs} is not a folder: expected the folder of tuning logs, with one folder "
            "per target in it"
        )
    return Path(logs)


def write(folder: Path, provenance: Provenance, layers: Sequence[LayerRecord]) -> None:
    """Replace the log in a target's folder as a whole."""
    lines = [_line({**asdict(layer), "workload": layer.workload.key}) for layer in layers]
    header = {
        "format": _FORMAT,
        "space": SPACE_VERSION,
        **asdict(provenance),
        "layers": len(lines),
    }
    signed = {**header, "sha256": _digest(header, lines)}
    files.replace(folder / NAME, "".join([_line(signed), *lines]).encode())


def damaged(path: Path, why: str) -> TuningLogError:
    """Return the error of a log that is not what was written."""
    return TuningLogError(
        f"the tuning log {path} is damaged ({why}): copy it again, or leave it out"
    )


def _read(path: Path) -> tuple[Provenance, tuple[LayerRecord, ...]]:
    try:
        lines = path.read_bytes().decode().splitlines(keepends=True)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    except UnicodeDecodeError:
        raise damaged(path, "it is no text") from None
    try:
        header = json.loads(lines[0])
        form, space = header["format"], header["space"]
        whole = header.pop("sha256") == _digest(header, lines[1:])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise damaged(path, "it has no header") from None
    if form != _FORMAT:
        raise _of_another_version(path, f"format {form}", str(_FORMAT))
    if not whole:
        raise damaged(path, "it is cut or altered")
    if space != SPACE_VERSION:
        raise _of_another_version(path, f"version {space} of the kernels", str(SPACE_VERSION))
    try:
        names = {field.name for field in fields(Provenance)}
        provenance = Provenance(**{name: header[name] for name in names})
        provenance = replace(
            provenance,
            threads=tuple(provenance.threads),
            gains=tuple(Gain(**gain) for gain in header["gains"]),
        )
        return provenance, tuple(_layer(json.loads(line)) for line in lines[1:])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(path, f"a line is not of its format: {error}") from None


def _layer(values: dict[str, Any]) -> LayerRecord:
    measured = {
        which: None
        if values[which] is None
        else Measured(dict(values[which]["config"]), tuple(values[which]["seconds"]))
        for which in ("preset", "leader", "kept")
    }
    return LayerRecord(**{**values, **measured, "workload": workload_of(values["workload"])})


def _of_another_version(path: Path, found: str, expected: str) -> TuningLogError:
    return TuningLogError(
        f"the tuning log {path} has {found}: expected {expected}; tune again, or leave it out"
    )


def _digest(header: dict[str, Any], lines: Sequence[str]) -> str:
    text = json.dumps(header, sort_keys=True) + "".join(lines)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"
