"""A report's data, and its JSON.

The JSON's fields are those of the dataclasses here and in `ferplus_tvm.bench.timing`, whose
docstrings say what they mean.  Times are in seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ferplus_tvm.bench.timing.cold_start import ColdStart
from ferplus_tvm.bench.timing.layers import LayerTime, LayerTimes
from ferplus_tvm.bench.timing.roofline import Level, Roofline
from ferplus_tvm.bench.timing.rows import EngineTime, Row
from ferplus_tvm.bench.timing.samples import Ratio
from ferplus_tvm.bench.timing.scenarios import Outcome
from ferplus_tvm.errors import BenchError

FORMAT = 1
JSON_NAME = "bench.json"


@dataclass(frozen=True)
class BenchWarning:
    """What makes figures less sure.

    Attributes
    ----------
    topic
        ``machine``, ``samples`` or ``library``.
    where
        The row that it is about, in words; empty for the whole benchmark.
    text
        What was found, and what to do.
    """

    topic: str
    where: str
    text: str

    def __str__(self) -> str:
        """Return the sentence with its place."""
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(frozen=True)
class Report:
    """All that was measured.

    Attributes
    ----------
    date
        The day, in UTC.
    command
        The command line, without paths.
    environment
        Where it was measured: see `ferplus_tvm.bench.environment.record`.
    library
        Our library: name, size, what it was compiled for, how many of its kernels are tuned, and
        how far its scores are off float64.
    model
        The model's name and checksum.
    rows
        Engines in turns.
    scenarios
        MLPerf's, each engine alone.
    cold, cold_ratios
        New processes.
    rooflines, layers
        What the machine can do, and what each kernel takes.
    warnings
        What makes the figures less sure.
    left_out
        For each peer on a GPU that could not be opened, and each batch size, the reason.
    peer_libraries
        The libraries that ours is measured beside, by name, as ``library``.
    """

    date: str
    command: str
    environment: dict[str, Any]
    library: dict[str, Any]
    model: dict[str, Any]
    rows: tuple[Row, ...]
    scenarios: tuple[Outcome, ...] = ()
    cold: tuple[ColdStart, ...] = ()
    cold_ratios: tuple[Ratio, ...] = ()
    rooflines: tuple[Roofline, ...] = ()
    layers: tuple[LayerTimes, ...] = ()
    warnings: tuple[BenchWarning, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    peer_libraries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def device(self) -> str | None:
        """The name of the GPU that was measured on, or of the CPU."""
        gpu = self.environment.get("gpu")
        name: str | None = gpu["name"] if gpu else self.environment.get("cpu")
        return name

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> Self:
        """Read a report; ``name`` is what an error calls it.

        Raises
        ------
        BenchError
            If it is something else, or of another format.
        """
        try:
            told = json.loads(text)
            version = told["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            version = None
        if version is None:
            raise BenchError(f"{name} is no report of a benchmark: give the {JSON_NAME} of one")
        if version != FORMAT:
            raise BenchError(
                f"{name} has format {version}: expected {FORMAT}; measure again with this one"
            )
        try:
            made: Self = _of(
                cls,
                told,
                rows=lambda each: _of(
                    Row, each, engines=lambda x: _of(EngineTime, x), ratios=lambda x: _of(Ratio, x)
                ),
                scenarios=lambda each: _of(Outcome, each),
                cold=lambda each: _of(ColdStart, each, samples=float),
                cold_ratios=lambda each: _of(Ratio, each),
                rooflines=lambda each: _of(Roofline, each, levels=lambda x: _of(Level, x)),
                layers=lambda each: _of(LayerTimes, each, layers=lambda x: _of(LayerTime, x)),
                warnings=lambda each: _of(BenchWarning, each),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BenchError(
                f"{name} lacks fields of a report of format {FORMAT} ({error}): measure it again"
            ) from error
        return made


def _of(kind: type[Any], told: dict[str, Any], **lists: Callable[[Any], Any]) -> Any:
    """Make a dataclass of what JSON tells; fields that a later version has added are left out.

    ``lists`` reads the members of fields that are lists.
    """
    known = {each.name for each in fields(kind)}
    values = {name: value for name, value in told.items() if name in known}
    for name, read_one in lists.items():
        values[name] = tuple(read_one(each) for each in told[name])
    return kind(**values)


def read(path: str | os.PathLike[str]) -> Report:
    """Read the JSON of a report.

    Raises
    ------
    BenchError
        If it cannot be read, or is something else.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise BenchError(
            f"{path} cannot be read ({error.strerror or error}): give the {JSON_NAME} of a report"
        ) from error
    return Report.from_json(text, str(path))
