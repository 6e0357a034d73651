"""Put the figures of the kept reports into the README: ``python benchmarks/readme.py``.

The reports are docs/bench/bench.json and docs/bench-batch-32/bench.json, whose ``command`` says
how they were made; a test compares the README with them.
"""

from __future__ import annotations

from pathlib import Path

from ferplus_tvm.bench import report, text
from ferplus_tvm.bench.measure import Row

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures of docs/bench -->", "<!-- end of figures -->"


def rows() -> list[Row]:
    """Return the rows of the reports; batch 32 is the longer one's."""
    short = report.read(ROOT / "docs" / "bench" / "bench.json")
    long = report.read(ROOT / "docs" / "bench-batch-32" / "bench.json")
    ordered = [row for row in short.rows if row.batch < 32 and row.way == "scores"]
    pictures = [row for row in short.rows if row.way == "jpeg"]
    return [*ordered, *long.rows, *pictures]


def table(measured: list[Row]) -> str:
    """Return a row for each peer, batch size and number of threads."""
    lines = [
        "| peer | batch | threads | peer, ms per face | ferplus_tvm, ms per face | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured:
        ours, *peers = row.engines
        for peer, ratio in zip(peers, row.ratios, strict=True):
            batch = f"{row.batch}" if row.way == "scores" else f"{row.batch}, JPEG to label"
            times = [f"{1e3 * each.p50 / row.batch:.2f}" for each in (peer, ours)]
            told = f"{ratio.ratio:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"
            lines.append(
                f"| {peer.engine} | {batch} | {row.threads} | {' | '.join(times)} | {told} |"
            )
    return "\n".join(lines)


def cold() -> str:
    """Return a row for each engine in a new process."""
    short = report.read(ROOT / "docs" / "bench" / "bench.json")
    header, cells = text.cold(short.cold, short.cold_ratios)
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in cells])


def main() -> None:
    """Replace what stands between the marks."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    figures = f"\n{table(rows())}\n\n{cold()}\n"
    readme.write_text(before + BEGIN + figures + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
