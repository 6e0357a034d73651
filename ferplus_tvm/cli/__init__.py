"""The command line: a thin module for each verb, which imports what it needs when it is called.

The exit status is 0 for success, 1 for a failure, which stderr tells in one sentence, and 2 for a
wrong call.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from dataclasses import dataclass
from typing import Annotated, NoReturn

import typer

from ferplus_tvm.cli import (
    bench,
    camera,
    demo,
    doctor,
    info,
    models,
    photo,
    predict,
    targets,
    video,
)
from ferplus_tvm.cli import compile as compile_verb
from ferplus_tvm.cli import tune as tune_verb
from ferplus_tvm.cli import verify as verify_verb
from ferplus_tvm.errors import FerplusError, last_line

app = typer.Typer(
    name="ferplus-tvm",
    help="Compile the FER+ emotion model for this hardware, and run it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("compile")(compile_verb.compile_)
app.command("tune")(tune_verb.tune)
app.command("verify")(verify_verb.verify)
app.command("bench")(bench.bench)
app.command("photo")(photo.photo)
app.command("video")(video.video)
app.command("camera")(camera.camera)
app.command("predict")(predict.predict)
app.command("info")(info.info)
app.add_typer(models.app, name="models")
app.command("targets")(targets.targets)
app.command("doctor")(doctor.doctor)


@dataclass
class _State:
    """The options before the verb."""

    debug: bool = False


_state = _State()


def _print_version(wanted: bool) -> None:
    if wanted:
        import ferplus_tvm

        typer.echo(f"ferplus-tvm {ferplus_tvm.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    _state.debug = debug


def run() -> None:
    """Run the command line."""
    # A file name may hold bytes that are not text, which are printed as they are.  Python's stderr
    # prints any text already.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        app()
    except FerplusError as error:
        if _state.debug:
            raise
        _fail(str(error))
    except BrokenPipeError:
        # Whoever reads our output has closed it.  Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if _state.debug:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"the output cannot be written ({error.strerror}): make room")
        _fail(
            f"something went wrong that should not ({type(error).__name__}: {last_line(error)}): "
            "run 'ferplus-tvm --debug ...' and report what it prints"
        )


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)
