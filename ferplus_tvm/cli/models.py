"""``ferplus-tvm models``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferplus_tvm.cli.output import print_table
from ferplus_tvm.errors import FerplusError

if TYPE_CHECKING:
    from ferplus_tvm.zoo import ZooModel

app = typer.Typer(
    help="List, download, verify and locate the models of the zoo.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `models list` shows.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Names that `models list` shows.")]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the models of the zoo, which of them are on this machine, and which can be compiled.

    A model is listed as fetched if its file is there and has the right size.  `models verify` also
    checks its sha256.
    """
    from ferplus_tvm.zoo import MODELS

    entries = [_describe(model) for model in MODELS]
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    header = ("name", "size", "opset", "fetched", "test data", "compiles", "terms")
    rows = [
        (
            entry["name"],
            _megabytes(entry["bytes"]),
            str(entry["opset"]),
            "yes" if entry["fetched"] else "no",
            _test_data(entry["test_data"]),
            _compiles(entry),
            entry["terms"],
        )
        for entry in entries
    ]
    print_table(header, rows, fold="terms")


@app.command()
def fetch(
    names: Names,
    with_test_data: Annotated[
        bool,
        typer.Option(
            "--with-test-data",
            help="Fetch the zoo's test data, too: inputs and the scores that they should get.",
        ),
    ] = False,
) -> None:
    """Download models into the cache folder, and verify them.

    An interrupted download is resumed by the next call.  The environment variable FERPLUS_TVM_CACHE
    may name another cache folder than the user's default one.
    """
    from ferplus_tvm.zoo import lookup
    from ferplus_tvm.zoo.fetch import fetch as fetch_model
    from ferplus_tvm.zoo.fetch import fetch_test_data

    models = [lookup(name) for name in names]
    for model in models:
        if model.unsupported:
            typer.echo(
                f"warning: {model.name} cannot be compiled yet, because of its {model.unsupported}",
                err=True,
            )
    for model in models:
        folder = None
        if with_test_data:
            with _progress(f"{model.name} with test data") as progress:
                folder = fetch_test_data(model, progress=progress)
        with _progress(model.name) as progress:
            path = fetch_model(model, progress=progress)
        typer.echo(f"{model.name}: {path}")
        if folder is not None:
            typer.echo(f"{model.name} test data: {folder}")


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Names that `models list` shows; by default all that are on this machine.",
        ),
    ] = None,
) -> None:
    """Check the size and sha256 of model files; exit with status 1 if one is wrong.

    `ferplus-tvm verify` checks a compiled library.
    """
    from ferplus_tvm.zoo import MODELS, lookup
    from ferplus_tvm.zoo import verify as verify_model
    from ferplus_tvm.zoo.registry import local_path

    chosen = [lookup(name) for name in names or ()]
    wrong = False
    for model in chosen or [model for model in MODELS if local_path(model).exists()]:
        try:
            verify_model(model)
        except FerplusError as error:
            wrong = True
            typer.echo(f"{model.name}: {error}", err=True)
        else:
            typer.echo(f"{model.name}: ok")
    if wrong:
        raise typer.Exit(1)


@app.command()
def path(name: Name) -> None:
    """Verify a model's file, and print its path and nothing else."""
    from ferplus_tvm.zoo import lookup
    from ferplus_tvm.zoo import verify as verify_model

    typer.echo(verify_model(lookup(name)))


def _describe(model: ZooModel) -> dict[str, Any]:
    """Return what `models list --json` says of one model."""
    from ferplus_tvm.zoo.registry import local_path, test_data_path

    file = local_path(model)
    archive = model.archive
    return {
        "name": model.name,
        "file": model.file_name,
        "bytes": model.size,
        "sha256": model.sha256,
        "opset": model.opset,
        "description": model.description,
        "terms": model.terms,
        "addresses": model.addresses,
        "path": str(file),
        "fetched": _has_size(file, model.size),
        "unsupported": model.unsupported or None,
        "detector": model.detector,
        "test_data": archive
        and {
            "file": archive.file_name,
            "bytes": archive.size,
            "sha256": archive.sha256,
            "addresses": archive.addresses,
            "path": str(test_data_path(model)),
            "fetched": test_data_path(model).is_dir(),
        },
    }


def _compiles(entry: dict[str, Any]) -> str:
    if entry["detector"]:
        return "with --detector"
    return f"not yet: {entry['unsupported']}" if entry["unsupported"] else "yes"


def _test_data(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "none"
    return "yes" if entry["fetched"] else "no"


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback that shows a bar on a terminal, and otherwise prints every tenth."""
    if not sys.stderr.isatty():
        yield _PlainProgress(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _PlainProgress:
    """A callback that prints a line on stderr for every tenth of the file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenths = -1

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // total
        if tenths != self._tenths:
            self._tenths = tenths
            typer.echo(
                f"{self._name}: {10 * tenths} % of {_megabytes(total)}",
                err=True,
            )
