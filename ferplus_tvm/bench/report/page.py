"""A report as one HTML page that needs no other file, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ferplus_tvm.bench.report import text, warnings
from ferplus_tvm.bench.report.data import Report
from ferplus_tvm.bench.report.plots import SCHEMES, Plot
from ferplus_tvm.bench.timing.rows import where

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; margin: 0 }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem }
.lead { font-size: 1.25rem; max-width: 46rem; margin: .5rem 0 1rem }
.made { font-size: .9rem }
figure { margin: 1rem 0; min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .25rem }
figure svg { display: block; width: 100%; max-width: 38rem; height: auto }
.plots { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.warnings { border-left: .3rem solid var(--ours); padding: .1rem 1rem; margin: 1.5rem 0 }
.warnings p { margin: .5rem 0 }
summary { cursor: pointer }
.table { overflow-x: auto; margin: .5rem 0 1.5rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: nowrap }
.word, th:first-child, td:first-child { text-align: left }
th:first-child, td:first-child { padding-left: 0 }
.facts td { white-space: normal; text-align: left; overflow-wrap: anywhere }
.facts th { text-align: left; vertical-align: top; font-weight: 600 }
code { overflow-wrap: anywhere }
"""


_NONE = ("", text.TOO_FEW, text.UNKNOWN)


def render(report: Report, plots: Mapping[str, Plot]) -> str:
    """Return the page: a sentence, the ratios, warnings in short, plots, and then tables."""
    body = "\n".join(_body(report, plots))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ferplus_tvm: benchmark of {escape(report.date)}</title>\n"
        f"<style>\n{SCHEMES}{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def _body(report: Report, plots: Mapping[str, Plot]) -> Iterator[str]:
    yield "<h1>ferplus_tvm beside other engines</h1>"
    yield f'<p class="lead">{escape(text.headline(report))}</p>'
    if "ratios" in plots:
        yield _figure(plots["ratios"])
    yield from _warnings(report)
    yield f'<p class="made">{escape(report.date)}, by <code>{escape(report.command)}</code></p>'
    others = [plot for name, plot in plots.items() if name != "ratios"]
    if others:
        yield "<h2>Plots</h2>"
        yield f'<div class="plots">{"".join(map(_figure, others))}</div>'
    yield "<h2>Latency</h2>"
    yield (
        "<p>Each engine lives in a process of its own and takes turns with the others; the next "
        "one begins when the threads of the one before sleep. A ratio is the peer's time over ours "
        "in the same round: the median over rounds, with its 95 % interval.</p>"
    )
    yield _table(text.latency(report.rows), "Time of a call, which is a whole batch")
    if any(row.ratios for row in report.rows):
        yield _table(text.evidence(report.rows), "What the ratios rest on")
    yield from _more_tables(report)
    yield "<h2>Environment</h2>"
    about = {"library": report.library, "model": report.model, **report.peer_libraries}
    yield _facts({**about, **report.environment})


def _more_tables(report: Report) -> Iterator[str]:
    if report.scenarios:
        yield "<h2>MLPerf's scenarios, each engine alone</h2>"
        yield _table(text.scenarios(report.scenarios), "SingleStream and Offline")
    if report.cold:
        yield "<h2>New processes</h2>"
        table = text.cold(report.cold, report.cold_ratios)
        yield _table(table, "From the start of a process to its first answer, and its memory then")
    if report.layers:
        yield "<h2>Layers and roofline</h2>"
        yield _table(text.rooflines(report.rooflines), "What the machine can do at most")
    for each in report.layers:
        what = where("scores", each.batch, each.threads)
        share = f"{each.of_roofline:.0%} of the roofline"
        yield _folded(f"{what}: {share}", _table(text.layers(each), f"Layers, {what}"))


def _warnings(report: Report) -> Iterator[str]:
    lines = warnings.summary(report.warnings, len(report.rows))
    if lines:
        told = _list(map(str, report.warnings))
        yield f'<div class="warnings"><p>{"<br>".join(map(escape, lines))}</p>'
        yield _folded(f"Warnings: {len(report.warnings)}", told) + "</div>"
    missing = sorted({name.partition(", batch")[0] for name in report.left_out})
    if missing:
        told = _list(f"{name}: {reason}" for name, reason in report.left_out.items())
        yield _folded(f"Not measured, or not at every batch size: {', '.join(missing)}", told)


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in items)}</ul>"


def _figure(plot: Plot) -> str:
    caption = f"<figcaption>{escape(plot.title)}</figcaption>"
    return f"<figure>{caption}{plot.svg}</figure>"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _table(table: text.Table, caption: str) -> str:
    header, rows = table
    columns = zip(*rows, strict=True)
    words = [all(cell[:1].isalpha() for cell in column if cell not in _NONE) for column in columns]
    style = [' class="word"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{how}>{escape(cell)}</th>' for cell, how in zip(header, style, strict=True)
    )
    lines = (
        "".join(f"<td{how}>{escape(cell)}</td>" for cell, how in zip(row, style, strict=True))
        for row in rows
    )
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    name = escape(caption)
    return (
        # What scrolls sideways has to be reached by the keyboard too.
        f'<div class="table" role="region" aria-label="{name}" tabindex="0">'
        f"<table><caption>{name}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {plain(each)}" for name, each in value.items())
        return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    lines: Iterable[str] = (
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>'
        f"<td>{escape(plain(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'
