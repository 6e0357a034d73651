"""``ferplus-tvm photo``."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ferplus_tvm.cli.face_options import (
    AnyRotation,
    MaxSide,
    MinFace,
    MinScore,
    SmallFaces,
    Views,
    ViewsOption,
    find_options,
)
from ferplus_tvm.cli.output import percent, printable
from ferplus_tvm.cli.photo_files import PhotoFiles
from ferplus_tvm.cli.pictures import Pictures, pictures, said
from ferplus_tvm.cli.reading import (
    Background,
    ChannelOrder,
    Device,
    Recursive,
    Threads,
    ValueRange,
    for_command_line,
    options_of,
    read_source,
    watched,
)
from ferplus_tvm.errors import InputError
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.photos import PhotoOptions
from ferplus_tvm.runtime.session_cuda import device_of
from ferplus_tvm.vision.photo import Photo
from ferplus_tvm.vision.table import CsvTable, ParquetTable, Row, rows_without_face

_AT_ONCE = 8  # photos, whose faces are answered in one batch


@dataclass(frozen=True)
class _Answer:
    """What became of one photo: its faces, or the sentence that says why not."""

    source: str
    photo: Photo | None
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        if self.photo is None:
            return {"source": self.source, "error": self.error}
        return self.photo.to_dict()

    def rows(self, labels: Sequence[str]) -> list[Row]:
        rows = [] if self.photo is None else self.photo.rows()
        return rows or rows_without_face(self.source, labels, self.error)


def photo(
    library: Annotated[
        Path, typer.Argument(help="A library that `compile --detector` wrote.", metavar="LIBRARY")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO...", help="Files, folders of files, or - for stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print a line of JSON for each photo.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, a row for each face, with a header.")
    ] = False,
    parquet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows of --csv as a Parquet file too."),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each photo with its faces drawn into it."),
    ] = None,
    crops: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each face, as predict takes it.")
    ] = None,
    min_face: MinFace = None,
    min_score: MinScore = 0.6,
    small_faces: SmallFaces = False,
    any_rotation: AnyRotation = False,
    max_side: MaxSide = 640,
    views: ViewsOption = Views.single,
    recursive: Recursive = False,
    value_range: ValueRange = None,
    channel_order: ChannelOrder = "RGB",
    background: Background = 255,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Find the faces in whole photos, and tell the emotion of each.

    A photo without a face is an answer. One that cannot be used is reported on stderr, the others
    are answered, and the exit status is 1. Nothing is stored but what you ask for, and nothing is
    sent. An emotion is what people read into a picture, not what somebody feels; the law may forbid
    its use, as at work and in education in the European Union.
    """
    if as_json + as_jsonl + as_csv > 1:
        raise typer.BadParameter("--json, --jsonl and --csv exclude each other: give one of them")
    try:
        device_of(device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    find = find_options(min_face, min_score, small_faces, any_rotation, max_side)
    if images.count("-") > 1:
        raise typer.BadParameter("- is given twice, but standard input can be read only once")
    options = cast(
        PhotoOptions,
        {
            **options_of(value_range, channel_order, background),
            **vars(find),
            "views": views.value,
        },
    )
    found = pictures(images, recursive)
    if found.passed_over:
        typer.echo(said(found.passed_over), err=True)
    with Engine(library, threads=threads, device=device) as engine, ExitStack() as stack:
        answers = _answers(engine, found, options)
        # Nothing is written before it is known that the library has a detector.
        answers = itertools.chain([next(answers)], answers)
        files = PhotoFiles(draw, crops, found.names)
        tables: list[CsvTable | ParquetTable] = []
        if parquet is not None:
            tables.append(stack.enter_context(closing(ParquetTable(parquet, engine.labels))))
        if as_csv:
            tables.append(CsvTable(sys.stdout, engine.labels))
        everything: list[dict[str, Any]] = []
        bad = False
        for each in watched("photo", answers, len(found.names)):
            answer = _with_files(each, files)
            if answer.error is not None:
                bad = True
                typer.echo(f"error: {printable(answer.error)}", err=True)
            for table in tables:
                table.write(answer.rows(engine.labels))
            if as_json:
                everything.append(answer.to_dict())
            elif as_jsonl:
                typer.echo(json.dumps(answer.to_dict()))
            elif not as_csv and answer.photo is not None:
                print_faces(answer.photo)
        if as_json:
            typer.echo(json.dumps(everything, indent=2))
    if bad:
        raise typer.Exit(1)


def _answers(engine: Engine, found: Pictures, options: PhotoOptions) -> Iterator[_Answer]:
    for start in range(0, len(found.names), _AT_ONCE):
        names = found.names[start : start + _AT_ONCE]
        given = [read_source(name) for name in names]
        answers = engine.analyze_batch(given, on_error="return", **options)
        for name, answer in zip(names, answers, strict=True):
            if name in found.problems:
                yield _Answer(name, None, found.problems[name])
            elif isinstance(answer, InputError):
                yield _Answer(name, None, for_command_line(str(answer), name))
            else:
                yield _Answer(name, replace(answer, source=name), None)


def _with_files(answer: _Answer, files: PhotoFiles) -> _Answer:
    """Write the files that are wanted of a photo; keep the answer if they cannot be written."""
    if answer.photo is None:
        return answer
    try:
        files.write(answer.photo)
    except InputError as error:
        return replace(answer, error=str(error))
    return answer


def print_faces(photo: Photo) -> None:
    """Print a line for the photo, and one for each face."""
    count = len(photo.faces)
    found = "no face found" if count == 0 else f"{count} face{'' if count == 1 else 's'}"
    typer.echo(f"{printable(photo.source)}: {found}")
    width = max((len(face.prediction.label) for face in photo.faces), default=0)
    for number, face in enumerate(photo.faces, 1):
        x, y, across, down = map(round, face.box)
        prediction = face.prediction
        typer.echo(
            f"{number:>4}  {prediction.label:<{width}} {percent(prediction.probability)}  "
            f"at {x},{y}  {across} x {down}"
        )
