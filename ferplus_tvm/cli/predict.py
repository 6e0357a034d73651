"""``ferplus-tvm predict``."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ferplus_tvm.cli.output import bar, percent
from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.postprocess import Prediction
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.session_cuda import device_of

_AT_ONCE = 32


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
        int | None, typer.Option(min=1, max=8, metavar="K", help="Only the K likeliest.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; as many as allowed by default.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, or for a library that holds code for GPUs cuda:0.")
    ] = "cpu",
) -> None:
    """Tell the emotion of faces; each image is one face, cropped roughly square.

    An image that cannot be used is reported on stderr, the others are answered, and the exit
    status is 1.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other: give one of them")
    try:
        device_of(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    sources = [found for image in images for found in _expand(image)]
    with Engine(library, threads=threads, device=device) as engine:
        answers = _watched(_answers(engine, sources), len(sources))
        if as_json:
            bad = _print_json(answers, top)
        elif as_csv:
            bad = _print_csv(answers, top)
        else:
            bad = _print_text(answers, top, alone=len(sources) == 1)
    if bad:
        raise typer.Exit(1)


def _expand(image: str) -> list[str]:
    """Return a folder's images in order of their names, and anything else as it is."""
    if image == "-" or not os.path.isdir(image):
        return [image]
    from PIL import Image

    # Pillow only writes some formats, such as PDF; MPO is read as the JPEG that it begins with.
    formats = Image.registered_extensions().items()
    suffixes = {suffix for suffix, name in formats if name in Image.OPEN} | {".mpo"}
    try:
        found = [
            str(path)
            for path in sorted(Path(image).iterdir())
            if path.suffix.lower() in suffixes and path.is_file()
        ]
    except OSError as error:
        raise InputError(
            f"the folder {image} cannot be read ({error.strerror}): check its permissions"
        ) from error
    if not found:
        raise InputError(f"the folder {image} holds no images: expected files such as face.jpg")
    return found


def _answers(engine: Engine, sources: list[str]) -> Iterator[_Answer]:
    for start in range(0, len(sources), _AT_ONCE):
        chunk = sources[start : start + _AT_ONCE]
        given = [sys.stdin.buffer.read() if source == "-" else source for source in chunk]
        for source, found in zip(
            chunk, engine.predict_batch(given, on_error="return"), strict=True
        ):
            if isinstance(found, InputError):
                yield _Answer(source, None, str(found))
            else:
                yield _Answer(source, found, None)


def _watched(answers: Iterable[_Answer], count: int) -> Iterable[_Answer]:
    """Draw a progress bar where there is much to do, and a terminal that nothing else fills."""
    if count <= _AT_ONCE or not sys.stderr.isatty() or sys.stdout.isatty():
        return answers
    from rich.console import Console
    from rich.progress import track

    return track(answers, "predict", count, console=Console(stderr=True), transient=True)


def _complain(answer: _Answer) -> None:
    if answer.error is not None:
        typer.echo(f"error: {answer.error}", err=True)


def _print_json(answers: Iterable[_Answer], top: int | None) -> bool:
    everything = list(answers)
    for answer in everything:
        _complain(answer)
    typer.echo(json.dumps([answer.to_dict(top) for answer in everything], indent=2))
    return any(answer.error is not None for answer in everything)


def _print_csv(answers: Iterable[_Answer], top: int | None) -> bool:
    """Print probabilities by emotion, or with ``--top`` the K likeliest in order."""
    bad = False
    table = csv.writer(sys.stdout, lineterminator="\n")
    ranks = [column for k in range(1, (top or 0) + 1) for column in (f"label{k}", f"p{k}")]
    table.writerow(["source", "label", "probability", *(ranks if top else EMOTIONS), "error"])
    for answer in answers:
        _complain(answer)
        prediction = answer.prediction
        if prediction is None:
            bad = True
            blank = [""] * (2 + (len(ranks) if top else len(EMOTIONS)))
            table.writerow([answer.source, *blank, answer.error])
            continue
        if top:
            cells = [cell for pair in prediction.ranking[:top] for cell in pair]
        else:
            cells = list(prediction.probabilities.values())
        table.writerow([answer.source, prediction.label, prediction.probability, *cells, ""])
    return bad


def _print_text(answers: Iterable[_Answer], top: int | None, alone: bool) -> bool:
    """Print bars for one image, and a line each for many."""
    bad = False
    for answer in answers:
        _complain(answer)
        if answer.prediction is None:
            bad = True
        elif alone:
            print_bars(answer.prediction, top)
        else:
            ranking = answer.prediction.ranking[: top or 1]
            likeliest = ", ".join(f"{label} {percent(p).strip()}" for label, p in ranking)
            typer.echo(f"{answer.source}: {likeliest}")
    return bad


def print_bars(prediction: Prediction, top: int | None = None) -> None:
    """Print the probabilities as bars, likeliest first."""
    for label, probability in prediction.ranking[:top]:
        typer.echo(f"{label:<10} {bar(probability)} {percent(probability)}")
