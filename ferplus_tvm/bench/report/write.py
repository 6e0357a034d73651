"""A report as files: JSON with all figures, CSV with every timed call, SVG plots, and a page."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from ferplus_tvm.bench.report import page, plots
from ferplus_tvm.bench.report.data import JSON_NAME, Report, read
from ferplus_tvm.bench.timing.rows import Call
from ferplus_tvm.errors import BenchError
from ferplus_tvm.host.files import replace

_CALLS = "calls.csv"


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
    figures = {JSON_NAME: report.to_json().encode(), _CALLS: _csv(calls)}
    return _write(Path(folder), {**figures, **_rendered(report, calls)})


def render(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the page and the plots of a report anew, by its JSON and its calls.

    That is for reports that are kept: those of ``docs`` were measured before the page looked so.

    Raises
    ------
    BenchError
        If they cannot be read or written.
    MissingExtraError
        If matplotlib is not installed.
    """
    place = Path(folder)
    return _write(place, _rendered(read(place / JSON_NAME), read_calls(place)))


def read_calls(folder: str | os.PathLike[str]) -> list[Call]:
    """Read the timed calls of a report, from its CSV or from that packed by gzip.

    Raises
    ------
    BenchError
        If there are none.
    """
    plain, packed = Path(folder) / _CALLS, Path(folder) / f"{_CALLS}.gz"
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
    except (OSError, EOFError) as error:
        raise BenchError(
            f"the calls of the report in {folder} cannot be read ({error}): expected {_CALLS} or "
            f"{packed.name}"
        ) from error
    kinds = {"way": str, "engine": str, "seconds": float}
    rows = csv.DictReader(io.StringIO(content.decode()))
    return [Call(**{name: kinds.get(name, int)(row[name]) for name in row}) for row in rows]


def _rendered(report: Report, calls: Sequence[Call]) -> dict[str, bytes]:
    drawn = plots.draw(report, calls)
    files = {"index.html": page.render(report, drawn).encode()}
    files |= {f"{name}.svg": plot.file().encode() for name, plot in drawn.items()}
    return files


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in plots.NAMES:
            if f"{name}.svg" not in files:  # of a report that had more figures
                (folder / f"{name}.svg").unlink(missing_ok=True)
        for name, content in files.items():
            replace(folder / name, content)
    except OSError as error:
        raise BenchError(
            f"the report cannot be written into {folder} ({error.strerror or error}): give "
            "another --out"
        ) from error
    return [folder / name for name in files]


def _csv(calls: Iterable[Call]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(field.name for field in fields(Call))
    writer.writerows(astuple(call) for call in calls)
    return file.getvalue().encode()
