"""The one table for photos, videos and cameras."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from ferplus_tvm.errors import MissingExtraError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.postprocess import postprocess
from ferplus_tvm.vision.photo import Face
from ferplus_tvm.vision.table import CsvTable, ParquetTable, columns, row_of, rows_without_face

FACE = Face((1.0, 2.0, 30.0, 40.0), (), 0.75, None, postprocess([0.0, 9, 0, 0, 0, 0, 0, 0])[0])


def written(*rows: dict[str, object]) -> list[dict[str, str]]:
    file = io.StringIO()
    CsvTable(file, EMOTIONS).write(rows)
    file.seek(0)
    return list(csv.DictReader(file))


def test_the_columns_are_those_that_the_pages_name() -> None:
    assert columns(EMOTIONS) == (
        *("source", "frame", "time", "face", "track", "x", "y", "w", "h", "score", "roll"),
        *("label", "probability", *EMOTIONS),
        *("smoothed_label", "smoothed_probability", "error"),
    )


def test_a_row_holds_a_face() -> None:
    (row,) = written(row_of("a,b.jpg", 1, FACE))
    assert row["source"] == "a,b.jpg" and row["face"] == "1" and row["label"] == "happiness"
    assert [float(row[name]) for name in ("x", "y", "w", "h", "score")] == [1, 2, 30, 40, 0.75]
    assert sum(float(row[label]) for label in EMOTIONS) == pytest.approx(1, abs=1e-5)
    assert row["frame"] == row["track"] == row["roll"] == row["error"] == ""


def test_a_photo_without_a_face_has_a_row_too() -> None:
    none, bad = written(
        *rows_without_face("a.jpg", EMOTIONS, None), *rows_without_face("b.jpg", EMOTIONS, "why")
    )
    assert (none["source"], none["face"], none["error"]) == ("a.jpg", "", "")
    assert (bad["source"], bad["face"], bad["error"]) == ("b.jpg", "", "why")


def test_a_label_with_the_name_of_a_column_has_a_column_of_its_own() -> None:
    face = Face(FACE.box, (), 0.75, None, postprocess([1.0, 2.0], ("score", "joy"))[0])
    row = row_of("a.jpg", 1, face)
    assert row["score"] == 0.75 and row["joy"] + row["probability_score"] == pytest.approx(1)


def test_parquet_says_what_to_install_or_keeps_types(tmp_path: Path) -> None:
    path = tmp_path / "faces.parquet"
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        with pytest.raises(MissingExtraError, match=r"ferplus_tvm\[parquet\]"):
            ParquetTable(path, EMOTIONS)
        return
    table = ParquetTable(path, EMOTIONS)
    table.write(rows_without_face("a.jpg", EMOTIONS, None))
    table.write([row_of("b.jpg", 1, FACE)])
    table.close()
    read = parquet.read_table(path)
    assert str(read.schema.field("error").type) == "string"
    assert str(read.schema.field("track").type) == "int64"
    assert [row["label"] for row in read.to_pylist()] == [None, "happiness"]
