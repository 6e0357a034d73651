"""One table for photos, videos and cameras: a row for each face."""

from __future__ import annotations

import csv
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from ferplus_tvm.errors import MissingExtraError

if TYPE_CHECKING:
    from ferplus_tvm.vision.photo import Face

Row = dict[str, Any]

_BEFORE = (
    *("source", "frame", "time", "face", "track", "x", "y", "w", "h", "score", "roll"),
    *("label", "probability"),
)
_AFTER = ("smoothed_label", "smoothed_probability", "error")
_TEXTS = ("source", "label", "smoothed_label", "error")
_GROUP = 10_000  # rows of a Parquet file that lie together
_WHOLE = ("frame", "face", "track")


def columns(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns for a model with these labels."""
    return (*_BEFORE, *map(column_of, labels), *_AFTER)


def column_of(label: str) -> str:
    """Return the column that holds the probability of a label."""
    return f"probability_{label}" if label in (*_BEFORE, *_AFTER) else label


def row_of(
    source: str, number: int, face: Face, frame: int | None = None, time: float | None = None
) -> Row:
    """Return the row of one face, its number counted from 1; of a video with frame and time."""
    probabilities = face.prediction.probabilities
    x, y, width, height = face.box
    row: Row = dict.fromkeys(columns(tuple(probabilities)))
    row |= {"source": source, "frame": frame, "time": time, "face": number, "track": face.track}
    row |= {"x": x, "y": y, "w": width, "h": height, "score": face.score, "roll": face.roll}
    row |= {"label": face.prediction.label, "probability": face.prediction.probability}
    if face.smoothed is not None:
        row["smoothed_label"] = face.smoothed.label
        row["smoothed_probability"] = face.smoothed.probability
    return row | {column_of(label): share for label, share in probabilities.items()}


def rows_without_face(
    source: str,
    labels: Sequence[str],
    error: str | None,
    frame: int | None = None,
    time: float | None = None,
) -> list[Row]:
    """Return the row of a photo or a frame that holds no face, or that cannot be read."""
    said = {"source": source, "frame": frame, "time": time, "error": error}
    return [{**dict.fromkeys(columns(labels)), **said}]


class CsvTable:
    """Writes rows as CSV with a header; what does not apply is empty."""

    def __init__(self, file: IO[str], labels: Sequence[str]) -> None:
        self._writer = csv.DictWriter(file, columns(labels), lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, numbers rounded to six digits behind the point."""
        for row in rows:
            self._writer.writerow({name: _short(value) for name, value in row.items()})


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _valid(value: Any) -> Any:
    """Return text that Parquet takes: a file's name may hold bytes that are none."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


class ParquetTable:
    """Writes rows as a Parquet file, whose columns have the same types whatever they hold.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    OSError
        If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Sequence[str]) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError:
            raise MissingExtraError.of("a Parquet file", "parquet") from None
        kinds = dict.fromkeys(columns(labels), self._arrow.float64())
        kinds |= dict.fromkeys(_TEXTS, self._arrow.string())
        kinds |= dict.fromkeys(_WHOLE, self._arrow.int64())
        self._schema = self._arrow.schema(kinds)
        self._writer = parquet.ParquetWriter(os.fspath(path), self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, many of them as one group."""
        self._rows += [{name: _valid(value) for name, value in row.items()} for row in rows]
        if len(self._rows) >= _GROUP:
            self._flush()

    def close(self) -> None:
        """End the file, which can be read only then."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = self._arrow.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table)
        self._rows.clear()
