"""What the verbs share: tables, bars and progress, plain where nobody watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], fold: str) -> None:
    """Print a table; on a narrow terminal only the column ``fold`` gives way.

    What is there to be copied, such as a name, stays whole.
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
    """Print named facts, one a line; with ``err`` on stderr."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        typer.echo(f"{name.ljust(width)}  {value}", err=err)


def bar(share: float, width: int = 30) -> str:
    """Return a bar for a share of 0..1, in what the terminal's encoding can show."""
    block = "█"
    try:
        block.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        block = "#"
    return (block * round(share * width)).ljust(width)


def percent(share: float) -> str:
    """Return a share of 0..1 as per cent, five characters wide or more."""
    return f"{100 * share:5.1f} %"


@contextmanager
def stages(names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Give a callback for the stages of a compilation: a bar on a terminal, otherwise lines."""
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
