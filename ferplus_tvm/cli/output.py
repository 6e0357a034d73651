"""Output that the verbs share: tables, bars and progress, as plain text outside a terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], fold: str) -> None:
    """Print a table.

    Parameters
    ----------
    header
        The titles of the columns.
    rows
        The cells, as many in each row as there are titles.
    fold
        The title of the column whose cells are wrapped on a narrow terminal.  Those of the others
        stay whole, because names are there to be copied.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for title in header:
            table.add_column(title, no_wrap=title != fold, overflow="fold")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def print_facts(facts: Sequence[tuple[str, str]], err: bool = False) -> None:
    """Print pairs of a name and a value, one a line; with ``err`` on stderr."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        typer.echo(f"{name.ljust(width)}  {value}", err=err)


def printable(text: str) -> str:
    """Return text with its control characters as escapes: a file's name may hold any."""
    return re.sub(r"[\0-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def bar(share: float, width: int = 30) -> str:
    """Return a bar for a share in [0, 1], by characters that the terminal's encoding has."""
    block = "█"
    try:
        block.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        block = "#"
    return (block * round(share * width)).ljust(width)


def percent(share: float) -> str:
    """Return a share in [0, 1] in per cent, the number five characters wide or more."""
    return f"{100 * share:5.1f} %"


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Show what the package logs as warnings."""

    class _Stderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            typer.echo(f"warning: {record.getMessage()}", err=True)

    handler, logger = _Stderr(logging.WARNING), logging.getLogger("ferplus_tvm")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def stages(names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Give a callback for a compilation's stages: a bar on a terminal, otherwise lines."""
    if not sys.stderr.isatty():
        yield lambda stage: typer.echo(f"{stage} ...", err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(names[0], total=len(names))
        yield lambda stage: progress.update(
            task, description=stage, completed=list(names).index(stage)
        )
