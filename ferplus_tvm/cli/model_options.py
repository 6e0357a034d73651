"""What the verbs that import a model are told of it: options, and how they are read."""

from __future__ import annotations

from typing import Annotated

import typer

InputRange = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="What black and white are to the model's file, such as 0,1 for one that was trained "
        "on x/255; faces stay raw pixels.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(metavar="NUMBERS", help="What was subtracted: a number, or one a channel."),
]
Std = Annotated[
    str | None,
    typer.Option(metavar="NUMBERS", help="What was divided by: a number, or one a channel."),
]
ModelOutput = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The output that holds the scores, for a model of several."),
]


def parse_scaling(
    input_range: str | None, mean: str | None, std: str | None
) -> dict[str, tuple[float, ...] | None]:
    """Read numbers such as ``0,1`` or ``0.5``, and return them as Python's arguments."""
    return {
        "input_range": _numbers(input_range, "--input-range"),
        "mean": _numbers(mean, "--mean"),
        "std": _numbers(std, "--std"),
    }


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers, such as 0,1", param_hint=option
        ) from None
