"""Put the figures of the kept reports into the README: ``python benchmarks/readme.py``.

The reports are docs/bench/bench.json and docs/bench-batch-32/bench.json, whose ``command`` says
how they were made, and those of benchmarks/gpu.py in docs/gpu; a test compares the README with
them.
"""

from __future__ import annotations

import json
from pathlib import Path

from ferplus_tvm.bench.report import data as report
from ferplus_tvm.bench.report import text
from ferplus_tvm.bench.timing.rows import Row

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures of docs/bench -->", "<!-- end of figures -->"
GPU_BEGIN, GPU_END = "<!-- figures of docs/gpu -->", "<!-- end of figures of docs/gpu -->"


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


def gpu() -> str:
    """Return a row for each precision and batch size: faces and scores on the GPU."""
    lines = [
        "| precision | batch | ferplus_tvm, ms | faces a second | of the peak | over it: "
        "PyTorch CUDA graph | torch.compile | PyTorch eager |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for precision in ("float32", "tf32", "float16"):
        content = (ROOT / "docs" / "gpu" / f"{precision}.json").read_text(encoding="utf-8")
        by_batch: dict[int, dict[str, dict[str, float]]] = {}
        for row in json.loads(content)["rows"]:
            if row["engine"].endswith(", on the GPU"):
                by_batch.setdefault(row["batch"], {})[row["engine"]] = row
        for batch, engines in by_batch.items():
            ours = engines.pop("ferplus_tvm, on the GPU")
            cells = [precision, str(batch), f"{ours['milliseconds']:.3f}"]
            cells += [f"{ours['faces_per_second']:.0f}", f"{ours['share_of_peak']:.0%}"]
            for peer in ("CUDA graph", "compile", "eager"):
                found = [row["over_ours"] for name, row in engines.items() if peer in name]
                cells.append("".join(f"{m:.2f} ({low:.2f}..{high:.2f})" for m, low, high in found))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks."""
    readme = ROOT / "README.md"
    text_now = readme.read_text(encoding="utf-8")
    blocks = ((BEGIN, END, f"{table(rows())}\n\n{cold()}"), (GPU_BEGIN, GPU_END, gpu()))
    for begin, end, figures in blocks:
        before, rest = text_now.split(begin)
        _, after = rest.split(end)
        text_now = f"{before}{begin}\n{figures}\n{end}{after}"
    readme.write_text(text_now, encoding="utf-8")


if __name__ == "__main__":
    main()
