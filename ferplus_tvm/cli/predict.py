"""``ferplus-tvm predict``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ferplus_tvm.cli.output import bar, percent, printable, warnings_on_stderr
from ferplus_tvm.cli.pictures import Pictures, pictures, said
from ferplus_tvm.cli.reading import (
    AT_ONCE,
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
from ferplus_tvm.faces.options import PreprocessOptions
from ferplus_tvm.faces.postprocess import Prediction
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.session_cuda import device_of


@dataclass(frozen=True)
class _Answer:
    """What became of one image: a prediction, or the sentence that says why not."""

    source: str
    prediction: Prediction | None
    error: str | None

    def to_dict(self, top: int | None) -> dict[str, Any]:
        if self.prediction is None:
            return {"source": self.source, "error": self.error}
        answer = {"source": self.source, **self.prediction.to_dict()}
        if top is not None:
            answer["ranking"] = answer["ranking"][:top]
        return answer


def predict(
    library: Annotated[Path, typer.Argument(help="A library that `compile` wrote.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders of files, or - for stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Only the K likeliest.")
    ] = None,
    recursive: Recursive = False,
    value_range: ValueRange = None,
    channel_order: ChannelOrder = "RGB",
    background: Background = 255,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Tell the emotion of faces; each image is one face, cropped roughly square.

    For whole photos use photo, which finds the faces.

    An image that cannot be used is reported on stderr, the others are answered, and the exit
    status is 1.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other: give one of them")
    try:
        device_of(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    if images.count("-") > 1:
        raise typer.BadParameter("- is given twice, but standard input can be read only once")
    options = options_of(value_range, channel_order, background)
    found = pictures(images, recursive)
    if found.passed_over:
        typer.echo(said(found.passed_over), err=True)
    with warnings_on_stderr(), Engine(library, threads=threads, device=device) as engine:
        labels = engine.manifest.labels
        if top is not None and top > len(labels):
            raise typer.BadParameter(
                f"{top} is more than the {len(labels)} classes of the model", param_hint="--top"
            )
        answers = watched("predict", _answers(engine, found, options), len(found.names))
        if len(found.names) == 1:
            answers = list(answers)
        if as_json:
            bad = _print_json(answers, top)
        elif as_csv:
            bad = _print_csv(answers, labels, top)
        else:
            bad = _print_text(answers, top)
    if bad:
        raise typer.Exit(1)


def _answers(engine: Engine, found: Pictures, options: PreprocessOptions) -> Iterator[_Answer]:
    for names in _chunks(found.names):
        given = [read_source(name) for name in names]
        answers = engine.predict_batch(given, on_error="return", **options)
        if not answers:
            yield _Answer(names[0], None, f"{names[0]!r} holds no faces: expected one at least")
            continue
        count = len(answers)
        if len(names) == 1 < count:
            names = [f"{names[0]} (face {number} of {count})" for number in range(1, count + 1)]
        for name, answer in zip(names, answers, strict=True):
            if name in found.problems:
                yield _Answer(name, None, found.problems[name])
            elif isinstance(answer, InputError):
                yield _Answer(name, None, for_command_line(str(answer), name))
            else:
                yield _Answer(name, answer, None)


def _chunks(names: list[str]) -> Iterator[list[str]]:
    """Yield some files at a time; alone what may be a tensor, which holds any number of faces."""
    chunk: list[str] = []
    for name in names:
        tensor = name == "-" or name.lower().endswith(".pb")
        if chunk and (tensor or len(chunk) == AT_ONCE):
            yield chunk
            chunk = []
        chunk.append(name)
        if tensor:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _complain(answer: _Answer) -> None:
    if answer.error is not None:
        typer.echo(f"error: {printable(answer.error)}", err=True)


def _print_json(answers: Iterable[_Answer], top: int | None) -> bool:
    everything = list(answers)
    for answer in everything:
        _complain(answer)
    typer.echo(json.dumps([answer.to_dict(top) for answer in everything], indent=2))
    return any(answer.error is not None for answer in everything)


def _print_csv(answers: Iterable[_Answer], labels: Sequence[str], top: int | None) -> bool:
    """Print probabilities by label, or with ``--top`` the K likeliest in order."""
    bad = False
    table = csv.writer(sys.stdout, lineterminator="\n")
    ranks = [column for k in range(1, (top or 0) + 1) for column in (f"label{k}", f"p{k}")]
    table.writerow(["source", "label", "probability", *(ranks if top else labels), "error"])
    for answer in answers:
        _complain(answer)
        prediction = answer.prediction
        if prediction is None:
            bad = True
            blank = [""] * (2 + (len(ranks) if top else len(labels)))
            table.writerow([answer.source, *blank, answer.error])
            continue
        if top:
            cells = [cell for pair in prediction.ranking[:top] for cell in pair]
        else:
            cells = list(prediction.probabilities.values())
        table.writerow([answer.source, prediction.label, prediction.probability, *cells, ""])
    return bad


def _print_text(answers: Iterable[_Answer], top: int | None) -> bool:
    """Print bars for one face, and a line each for many."""
    bad = False
    alone = isinstance(answers, list) and len(answers) == 1
    for answer in answers:
        _complain(answer)
        if answer.prediction is None:
            bad = True
        elif alone:
            print_bars(answer.prediction, top)
        else:
            ranking = answer.prediction.ranking[: top or 1]
            likeliest = ", ".join(f"{label} {percent(p).strip()}" for label, p in ranking)
            typer.echo(f"{printable(answer.source)}: {likeliest}")
    return bad


def print_bars(prediction: Prediction, top: int | None = None) -> None:
    """Print the probabilities as bars, likeliest first."""
    width = max(len(label) for label, _ in prediction.ranking) + 1
    for label, probability in prediction.ranking[:top]:
        typer.echo(f"{label:<{width}} {bar(probability)} {percent(probability)}")
