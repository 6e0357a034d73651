"""A report as one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from ferplus_tvm.bench import text
from ferplus_tvm.bench.report import Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto }
.warnings { background: #fff4e0; border-left: .3rem solid #c8802c; padding: .5rem 1rem }
code { background: #f3f3f3; padding: .1rem .3rem }
"""

_CAPTIONS = {
    "latency": "Which share of the calls took no longer than a time",
    "throughput": "Faces a second by batch size",
    "threads": "Latency by the number of threads",
    "layers": "Time by layer, and what the machine needs for it at least",
}


def render(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Return the page."""
    body = "\n".join(_body(report, pictures))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ferplus_tvm: benchmark of {escape(report.date)}</title>\n"
        f"<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def _body(report: Report, pictures: Mapping[str, bytes]) -> Iterator[str]:
    yield "<h1>ferplus_tvm beside other engines</h1>"
    told = f"{report.date}, {report.environment['cpu']}, by "
    yield f"<p>{escape(told)}<code>{escape(report.command)}</code></p>"
    yield _list(text.verdicts(report.rows))
    if report.spoiled_by:
        yield '<div class="warnings"><p>What spoils these figures:</p>'
        yield _list(report.spoiled_by) + "</div>"
    yield "<h2>Latency, in turns</h2>"
    yield _table(text.latency(report.rows))
    for name, picture in pictures.items():
        encoded = base64.b64encode(picture).decode()
        caption = escape(_CAPTIONS[name])
        yield (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if report.scenarios:
        yield "<h2>MLPerf's scenarios, each engine alone</h2>" + _table(
            text.scenarios(report.scenarios)
        )
    if report.cold:
        yield "<h2>New processes</h2>" + _table(text.cold(report.cold, report.cold_ratios))
    if report.limits:
        yield "<h2>What this machine can do</h2>" + _list(text.limits(report))
    for each in report.layers:
        yield f"<h2>Layers: batch {each.batch}, {each.threads} thread(s)</h2>"
        yield _table(text.layers(each))
    yield "<h2>What the figures rest on</h2>"
    yield (
        "<p>Each engine lives in a process of its own and takes turns with the others; the next "
        "one begins when the threads of the one before sleep. A ratio is the peer's time over ours "
        "in the same round, the median with the bootstrap's 95 % interval.</p>"
    )
    yield _list(text.evidence(report.rows))
    yield "<h2>Environment</h2>" + _facts(
        {"library": report.library, "model": report.model, **report.environment}
    )


def _table(table: text.Table) -> str:
    header, rows = table
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _facts(facts: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {plain(each)}" for name, each in value.items())
        return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), plain(value)) for name, value in facts.items()
    ]
    header: tuple[str, ...] = ("what", "value")
    return _table((header, rows))
