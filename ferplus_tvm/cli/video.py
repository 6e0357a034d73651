"""``ferplus-tvm video``."""

from __future__ import annotations

import itertools
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from ferplus_tvm.cli.face_options import (
    AnyRotation,
    MaxSide,
    MinFace,
    MinScore,
    SmallFaces,
    Smooth,
    Views,
    ViewsOption,
    find_options,
)
from ferplus_tvm.cli.output import printable
from ferplus_tvm.cli.reading import Device, Threads
from ferplus_tvm.cli.video_files import VideoFiles, Wanted
from ferplus_tvm.errors import InputError
from ferplus_tvm.host.interrupt import interrupts_held
from ferplus_tvm.runtime.engine import Engine
from ferplus_tvm.runtime.session_cuda import device_of
from ferplus_tvm.videos.frame import Frame
from ferplus_tvm.videos.timeline import Timeline, mostly
from ferplus_tvm.videos.video import Video
from ferplus_tvm.videos.video import video as open_video
from ferplus_tvm.videos.words import clock, length

_INTERRUPTED = 130  # a shell's exit status for a program that Ctrl-C ended
_TOLD = 20  # people in the summary


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: expected seconds, or such as 1:02:03.5")
    hours, minutes, seconds = (float(each or 0) for each in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def video(
    library: Annotated[
        Path, typer.Argument(help="A library that `compile --detector` wrote.", metavar="LIBRARY")
    ],
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video file, or an address.")],
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the video with its faces drawn into it, .mp4."),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, a row for each face of each frame.")
    ] = False,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print a line of JSON for each frame.")
    ] = False,
    parquet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows of --csv as a Parquet file too."),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Draw each person's emotions over time, .png or .html; repeatable."
        ),
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Look at each N-th frame.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="F", help="Look at no more than F frames a second.")
    ] = None,
    detect_every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Detect faces in each N-th of these, and follow them between."
        ),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="Begin at 75, 1:15 or 1:02:03.5."),
    ] = None,
    end: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="End before this time.")
    ] = None,
    smooth: Smooth = 0.25,
    min_face: MinFace = None,
    min_score: MinScore = 0.6,
    small_faces: SmallFaces = False,
    any_rotation: AnyRotation = False,
    max_side: MaxSide = 640,
    views: ViewsOption = Views.single,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Find the faces in a video, follow each person, and tell the emotions over time.

    Ctrl-C keeps what is done, and of a broken video what can be read is answered. Nothing is stored
    but what you ask for, and nothing is sent. A person is a track, a number within this video:
    nobody is identified. An emotion is what people read into a picture, not what somebody feels;
    the law may forbid its use, as at work and in education in the European Union.
    """
    if as_csv and as_jsonl:
        raise typer.BadParameter("--csv and --jsonl exclude each other: give one of them")
    if every is not None and fps is not None:
        raise typer.BadParameter("--every and --fps exclude each other: give one of them")
    find = find_options(min_face, min_score, small_faces, any_rotation, max_side)
    try:
        device_of(device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    wanted = Wanted(clip, draw, parquet, plot or (), as_csv, as_jsonl, start, end)
    try:
        with Engine(library, threads=threads, device=device) as engine:
            try:
                frames = open_video(
                    clip,
                    engine,
                    every=every or 1,
                    fps=fps,
                    detect_every=detect_every,
                    start=start,
                    end=end,
                    smooth=smooth,
                    views=views.value,
                    **vars(find),
                )
            except InputError:
                raise
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
            with frames:
                status = _run(frames, wanted, engine.labels)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status:
        raise typer.Exit(status)


def _run(frames: Video, wanted: Wanted, labels: tuple[str, ...]) -> int:
    """Write what is wanted of all frames, and return the exit status."""
    # Nothing is written before it is known that the video and the library can be used.
    first = next(frames, None)
    if first is None:
        lasts = "" if frames.duration is None else f", which lasts {length(frames.duration)}"
        raise InputError(f"there is no frame in this part of {frames.source}{lasts}: give another")
    files = VideoFiles(wanted, frames.source, labels)
    status = 0
    try:
        with _progress(frames, wanted) as show:
            for frame in itertools.chain([first], frames):
                with interrupts_held():  # until all of it is written
                    files.write(frame)
                    show(frame)
            with interrupts_held():
                files.finish(frames.duration)
    except KeyboardInterrupt:
        status = _INTERRUPTED
        typer.echo("stopped: what is done is kept", err=True)
    except InputError as error:
        status = 1
        files.write_error(str(error))
        with interrupts_held(), suppress(InputError):  # of a broken video, which was said
            files.finish(None)
        typer.echo(f"error: {printable(str(error))}", err=True)
    finally:
        with interrupts_held():
            files.close()
    if not wanted.csv and not wanted.jsonl:
        _print_summary(frames.source, files.timeline)
    return status


@contextmanager
def _progress(frames: Video, wanted: Wanted) -> Iterator[Callable[[Frame], None]]:
    """Give a callback that shows how far it is, on a terminal that nothing else fills."""
    if not sys.stderr.isatty() or ((wanted.csv or wanted.jsonl) and sys.stdout.isatty()):
        yield lambda frame: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    begin, end = wanted.start or 0.0, wanted.end or math.inf
    if frames.duration is not None:
        end = min(end, frames.duration)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.1f} frames/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        total = end - begin if math.isfinite(end) else None
        task = progress.add_task(clock(begin), total=total, rate=0.0)
        started, count = time.monotonic(), 0

        def show(frame: Frame) -> None:
            nonlocal count
            count += 1
            rate = count / max(time.monotonic() - started, 1e-3)
            done = frame.time - begin
            progress.update(task, completed=done, description=clock(frame.time), rate=rate)

        yield show


def _print_summary(source: str, timeline: Timeline) -> None:
    """Print a line for the video, and one for each person."""
    people = timeline.people
    count = len(people) + timeline.left_out
    found = "no face" if count == 0 else f"{count} {'person' if count == 1 else 'people'}"
    typer.echo(f"{printable(source)}: {found} in {length(timeline.end - timeline.start)}")
    for person in people[:_TOLD]:
        said = mostly(person, timeline.labels)
        typer.echo(f"{person.track:>4}  {length(person.seconds):>11}  {said}")
    if count > _TOLD:
        typer.echo(f"and {count - _TOLD} more, who are seen for a shorter time")
