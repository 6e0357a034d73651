"""What a tuning log says of itself: ``provenance.json`` beside the two files of the database.

The database's files only grow.  The provenance names how many bytes of each count, with their
checksum, and is replaced as a whole when they have grown: whatever is interrupted, a log is as it
was before or as it is after.  What follows the bytes that count was never finished.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.host import files

NAME = "provenance.json"
_FORMAT = 1


@dataclass(frozen=True)
class Part:
    """The bytes of a file that count."""

    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class LayerResult:
    """What was found for a layer; a record is named by its line in the file, from 0.

    workload
        the layer's line in ``database_workload.json``.
    preset
        the record of the configuration that is used untuned.
    leader
        the record of the fastest, by more than the noise, with the layer on its own.
    kept
        the one that a compilation uses: a leader that was not slower in the whole network.
    """

    kernel: str
    workload: int
    preset: int | None = None
    leader: int | None = None
    kept: int | None = None

    @property
    def used(self) -> int | None:
        """The record of what a compilation uses, which is the preset where none is kept."""
        return self.preset if self.kept is None else self.kept


@dataclass(frozen=True)
class Gain:
    """The whole network's time with presets over its time with the records kept.

    noise
        how far off 1 the ratio may be and mean nothing.
    """

    batch: int
    threads: int
    ratio: float
    noise: float


@dataclass(frozen=True)
class Provenance:
    """Where the records come from.

    cpu
        the name of the CPU that they were measured on, or of the devices' key.
    threads
        the numbers of threads that each record's seconds are for, in order.
    command
        the last run's.
    """

    target: str
    target_config: dict[str, Any]
    cpu: str
    threads: tuple[int, ...]
    date: str
    command: str
    created_with: str
    tvm_version: str
    tvm_ffi_version: str
    workloads: Part = Part()
    records: Part = Part()
    layers: tuple[LayerResult, ...] = ()
    gains: tuple[Gain, ...] = ()

    def write(self, folder: Path) -> None:
        """Take the place of the provenance in a folder, as a whole."""
        content = {"format": _FORMAT, **asdict(self)}
        text = json.dumps({**content, "sha256": _checksum(content)}, indent=1)
        files.replace(folder / NAME, (text + "\n").encode())


def tvm_version() -> str:
    """Return the version of TVM whose logs can be read here."""
    return importlib.metadata.version("apache-tvm")


def read(folder: Path) -> Provenance:
    """Read the provenance in a folder.

    Raises
    ------
    TuningLogError
        If it is damaged, or of another format or version of TVM.
    """
    try:
        content = json.loads((folder / NAME).read_bytes())
        form, checksum = content.pop("format"), content.pop("sha256")
        whole = checksum == _checksum({"format": form, **content})
    except OSError as error:
        raise TuningLogError(
            f"the tuning log in {folder} has no {NAME} that can be read "
            f"({error.strerror or error}): copy the folder again, or leave it out"
        ) from error
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        whole, form = False, None
    if not whole:
        raise damaged(folder, f"its {NAME} is cut or altered")
    if form != _FORMAT:
        raise TuningLogError(
            f"the tuning log in {folder} has format {form}: expected {_FORMAT}; tune again, or "
            "leave it out"
        )
    found = content["tvm_version"]
    if found != tvm_version():
        raise TuningLogError(
            f"the tuning log in {folder} was made with apache-tvm {found}, but "
            f"{tvm_version()} is installed: tune again with another --log-dir, or "
            "leave it out"
        )
    if set(content) != {field.name for field in fields(Provenance)}:
        raise damaged(folder, f"its {NAME} has other fields than its format")
    return replace(
        Provenance(**content),
        threads=tuple(content["threads"]),
        workloads=Part(**content["workloads"]),
        records=Part(**content["records"]),
        layers=tuple(LayerResult(**layer) for layer in content["layers"]),
        gains=tuple(Gain(**gain) for gain in content["gains"]),
    )


def counted(path: Path, part: Part) -> bytes:
    """Return the bytes of a file that count.

    Raises
    ------
    TuningLogError
        If they are not what they were when they were written.
    """
    if not part.bytes:
        return b""
    try:
        with path.open("rb") as file:
            content = file.read(part.bytes)
    except OSError as error:
        raise damaged(path.parent, f"{path.name}: {error.strerror or error}") from error
    if len(content) != part.bytes or hashlib.sha256(content).hexdigest() != part.sha256:
        raise damaged(path.parent, f"{path.name} is cut or altered")
    return content


def damaged(folder: Path, why: str) -> TuningLogError:
    """Return the error of a log that is not what was written."""
    return TuningLogError(
        f"the tuning log in {folder} is damaged ({why}): copy it again, or leave it out"
    )


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
