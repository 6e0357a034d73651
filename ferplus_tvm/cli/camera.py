"""``ferplus-tvm camera``."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ferplus_tvm.cli.face_options import MinScore, Smooth, find_options
from ferplus_tvm.cli.output import percent, printable
from ferplus_tvm.cli.reading import Threads
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.videos.camera import Camera
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.page import LivePage
from ferplus_tvm.videos.video import video


def camera(
    library: Annotated[
        Path, typer.Argument(help="A library that `compile --detector` wrote.", metavar="LIBRARY")
    ],
    device: Annotated[
        str,
        typer.Option(
            metavar="CAMERA",
            help="The camera's number, a part of its name, or the address of a live stream.",
        ),
    ] = "0",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT", help="The size of picture that the camera is asked for."
        ),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Show the camera on a web page that this machine alone can open; 0: any port.",
        ),
    ] = None,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print a line of JSON for each frame.")
    ] = False,
    min_face: Annotated[
        float, typer.Option(metavar="N", help="Least width and height of a face in pixels.")
    ] = 24,
    min_score: MinScore = 0.6,
    smooth: Smooth = 0.25,
    threads: Threads = None,
) -> None:
    """Find the faces that a camera sees, and tell the emotion of each, until Ctrl-C.

    Always the newest frame is taken; those that come meanwhile are dropped, and counted. Nothing is
    stored, and nothing leaves this machine. An emotion is what people read into a picture, not what
    somebody feels; tell the people whom the camera sees, which the law may ask for. It may forbid
    the use, as at work and in education in the European Union.
    """
    if http is not None and as_jsonl:
        raise typer.BadParameter("--http and --jsonl exclude each other: give one of them")
    wanted = None if size is None else _size(size)
    find = find_options(min_face, min_score)
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(library, threads=threads))
        page = None if http is None else stack.enter_context(LivePage(http))
        source = stack.enter_context(Camera(device, size=wanted))
        frames = video(source, engine, smooth=smooth, **vars(find))
        stack.enter_context(frames)
        assert source.size is not None
        if wanted not in (None, source.size):
            width, height = source.size
            typer.echo(
                f"warning: {source.name} gives {width}x{height} in place of {size}", err=True
            )
        count = 0
        try:
            for frame in frames:
                latency, dropped = source.age, source.dropped
                if page is not None:
                    page.show(frame, latency, dropped)
                    if count == 0:
                        typer.echo(f"{page.address} shows {printable(source.name)}; Ctrl-C ends it")
                elif as_jsonl:
                    facts = {"latency": round(latency, 6), "dropped": dropped}
                    typer.echo(json.dumps({**frame.to_dict(), **facts}))
                else:
                    _print_text(frame, latency)
                count += 1
        except KeyboardInterrupt:  # the way to end it
            pass
        typer.echo(f"{count} frames, and {source.dropped} dropped", err=True)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or not min(pair := (int(found[1]), int(found[2]))):
        raise typer.BadParameter(
            f"{text!r} is no size: expected two numbers, such as 1280x720", param_hint="--size"
        )
    return pair


def _print_text(frame: Frame, latency: float) -> None:
    """Print a line for a frame: its time, and the emotion of each person."""
    said = [(face.track, face.smoothed or face.prediction) for face in frame.faces]
    people = [f"{track}: {each.label} {percent(each.probability).strip()}" for track, each in said]
    typer.echo(
        f"{frame.time:8.2f} s  {1000 * latency:4.0f} ms  {',  '.join(people) or 'no face found'}"
    )
