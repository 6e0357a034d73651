"""How the verbs read pictures: their options, and what they show where there are many."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar, cast

import typer

from ferplus_tvm.faces.options import CheckedOptions, PreprocessOptions

T = TypeVar("T")

Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Read the folders in folders too.")
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        metavar="BLACK,WHITE",
        help="Black and white of images of 16 or 32 bits, such as 0,4095 or 0,1.",
    ),
]
ChannelOrder = Annotated[str, typer.Option(help="RGB or BGR, of tensors; images know their own.")]
Background = Annotated[float, typer.Option(help="Grey level behind transparent pixels, 0 to 255.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; as many as allowed by default.")
]
Device = Annotated[str, typer.Option(help="cpu, or for a library that holds code for GPUs cuda:0.")]

AT_ONCE = 32
"""The pictures that are answered in one batch."""


def read_source(name: str) -> str | bytes:
    """Return a file's name as it is, and for ``-`` what standard input holds."""
    return sys.stdin.buffer.read() if name == "-" else name


def options_of(value_range: str | None, channel_order: str, background: float) -> PreprocessOptions:
    """Check how images are to be read."""
    options = PreprocessOptions(background=background)
    options["channel_order"] = cast(Any, channel_order)
    if value_range is not None:
        options["value_range"] = _range(value_range)
    try:
        CheckedOptions.of(options, size=64, channels=1)
    except ValueError as error:
        raise typer.BadParameter(for_command_line(str(error))) from None
    return options


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no range: expected two numbers, such as 0,1", param_hint="--value-range"
        ) from None
    return low, high


def watched(verb: str, answers: Iterable[T], count: int) -> Iterable[T]:
    """Draw a progress bar where there is much to do, and a terminal that nothing else fills."""
    if count <= AT_ONCE or not sys.stderr.isatty() or sys.stdout.isatty():
        return answers
    from rich.console import Console
    from rich.progress import track

    return track(answers, verb, count, console=Console(stderr=True), transient=True)


def for_command_line(sentence: str, name: str = "") -> str:
    """Name the options of `preprocess` that a message advises, and standard input, as given."""
    if name.startswith("-"):
        sentence = sentence.replace("item 1 of 1", "standard input")
    sentence = re.sub(r"value_range=\((\S+), (\S+)\)", r"--value-range \1,\2", sentence)
    return sentence.replace("value_range", "--value-range").replace(
        "channel_order", "--channel-order"
    )
