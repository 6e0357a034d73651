"""A report as files: JSON with all figures, CSV with every timed call, PNG plots, and a page.

The JSON's fields are those of the dataclasses here and in the modules beside this one, whose
docstrings say what they mean; ``docs/bench.md`` lists them.  Times are in seconds.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Self

from ferplus_tvm.bench.cold import ColdStart
from ferplus_tvm.bench.layers import LayerTime
from ferplus_tvm.bench.limits import Level, Limits
from ferplus_tvm.bench.measure import Call, EngineTime, Row
from ferplus_tvm.bench.samples import Ratio
from ferplus_tvm.bench.scenarios import Outcome
from ferplus_tvm.errors import BenchError
from ferplus_tvm.host.files import replace

FORMAT = 1
_JSON = "bench.json"


@dataclass(frozen=True)
class LayersOf:
    """The layers of one batch size and number of threads, and the share of the machine's limit."""

    batch: int
    threads: int
    of_limit: float
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class Report:
    """All that was measured.

    environment
        see `ferplus_tvm.bench.environment`.
    library, model
        what ours and the peers ran: names, checksums, and what the library was compiled for.
    rows
        engines in turns.
    scenarios
        MLPerf's, each engine alone.
    cold, cold_ratios
        new processes.
    limits, layers
        what the machine can do, and what each kernel takes.
    spoiled_by
        a sentence for each thing that does.
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
    limits: tuple[Limits, ...] = ()
    layers: tuple[LayersOf, ...] = ()
    spoiled_by: tuple[str, ...] = ()

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
            form = told["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            form = None
        if form is None:
            raise BenchError(f"{name} is no report of a benchmark: give the {_JSON} of one")
        if form != FORMAT:
            raise BenchError(
                f"{name} has format {form}: expected {FORMAT}; measure it again with this version"
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
                limits=lambda each: _of(Limits, each, levels=lambda x: _of(Level, x)),
                layers=lambda each: _of(LayersOf, each, layers=lambda x: _of(LayerTime, x)),
                spoiled_by=str,
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
    known = {field.name for field in fields(kind)}
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
            f"{path} cannot be read ({error.strerror or error}): give the {_JSON} of a report"
        ) from error
    return Report.from_json(text, str(path))


def write(folder: str | os.PathLike[str], report: Report, calls: Sequence[Call]) -> list[Path]:
    """Write a report's files into a folder, which is made where needed; return their paths.

    Each takes the place of an older one as a whole.

    Raises
    ------
    BenchError
        If they cannot be written.
    MissingExtraError
        If matplotlib is not installed.
    """
    from ferplus_tvm.bench import page, plots

    pictures = plots.draw(report, calls)
    files: list[tuple[str, bytes]] = [
        (_JSON, report.to_json().encode()),
        ("calls.csv", _csv(calls)),
        ("index.html", page.render(report, pictures).encode()),
        *((f"{name}.png", picture) for name, picture in pictures.items()),
    ]
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name in plots.NAMES:
            (place / f"{name}.png").unlink(missing_ok=True)  # of a report that had more figures
        for name, content in files:
            replace(place / name, content)
    except OSError as error:
        raise BenchError(
            f"the report cannot be written into {folder} ({error.strerror or error}): give "
            "another --out"
        ) from error
    return [place / name for name, _ in files]


def _csv(calls: Iterable[Call]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(field.name for field in fields(Call))
    writer.writerows(astuple(call) for call in calls)
    return file.getvalue().encode()
