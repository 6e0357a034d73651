"""The options of which faces are found in photos and videos."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from ferplus_tvm.vision.find import FindOptions


class Views(StrEnum):
    """What counts of each face."""

    single = "single"
    mirror = "mirror"


def _seconds(given: float) -> float:
    if not 0 <= given < math.inf:
        raise typer.BadParameter(f"{given} is no time: expected seconds of 0 or more")
    return given


MinFace = Annotated[
    float | None,
    typer.Option(
        metavar="N", help="Least width and height of a face in pixels; 24, with --small-faces 10."
    ),
]
MinScore = Annotated[float, typer.Option(metavar="P", help="Least score of a face, 0 to 1.")]
SmallFaces = Annotated[
    bool, typer.Option("--small-faces", help="Look in larger scales too; slow for large pictures.")
]
AnyRotation = Annotated[
    bool, typer.Option("--any-rotation", help="Look in four positions, for faces that lie.")
]
MaxSide = Annotated[
    int, typer.Option(metavar="N", help="Shrink the longer side to N pixels to find faces.")
]
ViewsOption = Annotated[
    Views, typer.Option(help="mirror: each face together with its mirror image.")
]
Smooth = Annotated[
    float,
    typer.Option(
        callback=_seconds,
        metavar="SECONDS",
        help="Average each person's emotions so long; 0: not.",
    ),
]


def find_options(
    min_face: float | None,
    min_score: float,
    small_faces: bool = False,
    any_rotation: bool = False,
    max_side: int = 640,
) -> FindOptions:
    """Return what is looked for; a value out of its range is a wrong call."""
    try:
        return FindOptions(min_face, min_score, small_faces, any_rotation, max_side)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
