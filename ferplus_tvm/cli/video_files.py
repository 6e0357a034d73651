"""What ``video`` writes of each frame: rows, lines of JSON, an annotated video, and plots."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from ferplus_tvm.errors import InputError
from ferplus_tvm.videos.encode import container_of
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.plot import expect_plot
from ferplus_tvm.videos.timeline import Timeline
from ferplus_tvm.videos.write import VideoWriter, expect_other_file
from ferplus_tvm.vision.table import CsvTable, ParquetTable, Row, rows_without_face


@dataclass(frozen=True)
class Wanted:
    """What is to be written of a video.

    Attributes
    ----------
    clip
        The video, which no file may be written over.
    draw, parquet, plots
        The files.
    csv, jsonl
        Whether standard output has rows, or lines of JSON.
    start, end
        The part of the video, in seconds.

    Raises
    ------
    InputError
        If a file cannot be written under its name.
    MissingExtraError
        If what draws a plot is not installed.
    """

    clip: str
    draw: Path | None
    parquet: Path | None
    plots: Sequence[Path]
    csv: bool
    jsonl: bool
    start: float | None
    end: float | None

    def __post_init__(self) -> None:
        files = [each for each in (self.draw, self.parquet, *self.plots) if each is not None]
        if len({os.path.realpath(each) for each in files}) < len(files):
            raise InputError("two outputs have the same name: give each file a name of its own")
        for file in files:
            expect_other_file(file, self.clip)
            if not file.parent.is_dir():
                raise InputError(f"{file} is in no folder that exists: make {file.parent} first")
        if self.draw is not None:
            container_of(self.draw)
        for file in self.plots:
            expect_plot(file)


class VideoFiles:
    """Writes what is wanted of a video, frame by frame.

    Parameters
    ----------
    wanted
        What is to be written.
    source
        What the video is called: an address has lost its password.
    labels
        Those of the model.

    Attributes
    ----------
    timeline
        Who was seen when.
    """

    def __init__(self, wanted: Wanted, source: str, labels: Sequence[str]) -> None:
        self.timeline = Timeline(labels)
        self._wanted, self._source, self._labels = wanted, source, labels
        self._tables: list[CsvTable | ParquetTable] = []
        self._writer: VideoWriter | None = None
        with ExitStack() as stack:
            if wanted.draw is not None:
                clip = wanted.clip if os.path.isfile(wanted.clip) else None
                if clip is None:  # what they have given they may not give again
                    typer.echo("warning: no sound is written of an address or a pipe", err=True)
                self._writer = VideoWriter(wanted.draw, clip, start=wanted.start, end=wanted.end)
                stack.callback(self._writer.close)
            if wanted.parquet is not None:
                table = _parquet(wanted.parquet, labels)
                stack.callback(table.close)
                self._tables.append(table)
            self._opened = stack.pop_all()
        if wanted.csv:
            self._tables.append(CsvTable(sys.stdout, labels))

    def write(self, frame: Frame) -> None:
        """Write what is wanted of a frame."""
        self.timeline.add(frame)
        rows = frame.rows() or rows_without_face(
            frame.source, self._labels, None, frame.index, frame.time
        )
        self._write_rows(rows)
        if self._wanted.jsonl:
            typer.echo(json.dumps(frame.to_dict()))
        if self._writer is not None:
            self._writer.write(frame)

    def write_error(self, sentence: str) -> None:
        """Write what ended the video before its end."""
        self._write_rows(rows_without_face(self._source, self._labels, sentence))
        if self._wanted.jsonl:
            typer.echo(json.dumps({"source": self._source, "error": sentence}))

    def finish(self, end: float | None) -> None:
        """Write what follows the last frame, at the end of the video, whose time may be known."""
        self.timeline.close(end)
        if self._writer is not None:
            self._writer.finish()

    def close(self) -> None:
        """End the files, which can be read then, and draw the plots."""
        self.timeline.close()
        with self._opened:
            for path in self._wanted.plots:
                self.timeline.plot(path, f"Emotions in {Path(self._source).name}")
        for note in [] if self._writer is None else self._writer.notes:
            typer.echo(f"warning: {note}", err=True)

    def _write_rows(self, rows: Sequence[Row]) -> None:
        for table in self._tables:
            table.write(rows)


def _parquet(path: Path, labels: Sequence[str]) -> ParquetTable:
    try:
        return ParquetTable(path, labels)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): name another file"
        ) from error
