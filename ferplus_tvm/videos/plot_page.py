"""The page of a plot: one HTML file with the same figures as tables, which need no eyes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import numpy as np

from ferplus_tvm.videos.timeline import Person, Timeline
from ferplus_tvm.videos.words import clock, length
from ferplus_tvm.vision.draw import colour_of

_INTERVALS = 20  # rows of the table over time
_COLUMNS = 12  # people in it

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; color: #1f2328; background: #fff }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem }
figure { margin: 1rem 0; overflow-x: auto }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .25rem }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #d0d7de; text-align: right;
  white-space: nowrap }
th:first-child { text-align: left }
i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border: 1px solid #555 }
"""


def render(timeline: Timeline, title: str, svg: str) -> str:
    """Return the page: the plot, who was seen, and the emotions over time."""
    body = "\n".join(_body(timeline, title, svg))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _body(timeline: Timeline, title: str, svg: str) -> Iterator[str]:
    people = timeline.people
    span = f"from {clock(timeline.start)} to {clock(timeline.end)}"
    more = f", and {timeline.left_out} more for a shorter time" if timeline.left_out else ""
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>{_count(len(people))}{more}; {span} (minutes:seconds).</p>"
    yield f'<figure role="region" aria-label="Plot" tabindex="0">{svg}</figure>'
    if people:
        yield "<h2>People</h2>"
        yield _people(timeline, people)
        yield "<h2>Over time</h2>"
        yield _over_time(timeline, people[:_COLUMNS])
    yield (
        "<p>An emotion is what people read into a picture, not what somebody feels. A person is a "
        "track, a number within this video; nobody is identified. The law may forbid the use of "
        "such figures, as at work and in education in the European Union, or ask to tell those who "
        "are seen.</p>"
    )


def _count(people: int) -> str:
    if people == 0:
        return "No face was found"
    return f"{people} {'person was' if people == 1 else 'people were'} seen"


def _people(timeline: Timeline, people: Sequence[Person]) -> str:
    header = [
        *(escape(name) for name in ("person", "seen for", "from", "to", "mostly")),
        *(_name(timeline, label) for label in timeline.labels),
    ]
    rows = []
    for person in people:
        best = timeline.labels[int(np.argmax(person.label_seconds))]
        rows.append(
            [
                str(person.track),
                length(person.seconds),
                clock(person.first, tenths=True),
                clock(person.last, tenths=True),
                escape(best),
                *(_percent(share) for share in person.label_seconds / person.seconds),
            ]
        )
    return _table(
        "Who was seen, for how long, and for which part of it each emotion was the most probable "
        "one",
        header,
        rows,
    )


def _over_time(timeline: Timeline, people: Sequence[Person]) -> str:
    """Return a table of the most probable emotion of each person in a score of intervals."""
    used = math.ceil((timeline.end - timeline.start) / timeline.bin)
    step = max(1, math.ceil(used / _INTERVALS))
    tenths = step * timeline.bin < 1
    rows = []
    for first in range(0, used, step):
        begin = timeline.start + first * timeline.bin
        end = min(begin + step * timeline.bin, timeline.end)
        row = [f"{clock(begin, tenths)} to {clock(end, tenths)}"]
        for person in people:
            sums = person.bins[first : first + step].sum(axis=0)
            best = int(np.argmax(sums))
            label = _name(timeline, timeline.labels[best])
            row.append(f"{label} {_percent(sums[best] / sums.sum())}" if sums.any() else "")
        rows.append(row)
    what = "The most probable emotion of each person, and its mean probability; empty: not seen"
    header = ["time", *(f"person {person.track}" for person in people)]
    return _table(what, header, rows)


def _name(timeline: Timeline, label: str) -> str:
    """Return a label after a square in its colour."""
    colour = colour_of(label, timeline.labels)
    return f'<i style="background:{colour}"></i>{escape(label)}'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column names its rows; cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    name = escape(caption)
    return (
        # What scrolls sideways has to be reached by the keyboard too.
        f'<div class="table" role="region" aria-label="{name}" tabindex="0">'
        f"<table><caption>{name}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )
