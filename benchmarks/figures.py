"""Put the figures of the kept reports into the pages: ``python benchmarks/figures.py``.

The reports are docs/bench/bench.json and docs/bench-batch-32/bench.json, whose ``command`` says
how they were made, those of a GPU in docs/gpu, and those of benchmarks/photos.py, detector.py and
installed_size.py in docs/peers.  They are read as plain JSON, so that kept ones outlive
the code that wrote them.

The line ``<!-- figures: NAME -->``, with a key of `TABLES`, says where figures belong on a page:
they end with the next empty line.  A test sees that the pages hold what this script writes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "peers.md")
PRECISIONS = ("float32", "tf32", "float16")
_MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(?:.+\n)*")

Report = dict[str, Any]
Row = dict[str, Any]


@functools.cache
def report(name: str) -> Report:
    """Read a report of docs/, such as ``bench``, ``gpu/float32`` or ``peers/photos``."""
    path = ROOT / "docs" / (f"{name}.json" if "/" in name else f"{name}/bench.json")
    content: Report = json.loads(path.read_text(encoding="utf-8"))
    return content


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def cpu_rows() -> Iterator[tuple[Row, Row, Row, Row]]:
    """Give each measurement as row, our engine, the peer and their ratio.

    Batch 32 is the longer report's.
    """
    short = report("bench")["rows"]
    ordered = [row for row in short if row["batch"] < 32 and row["way"] == "scores"]
    ordered += report("bench-batch-32")["rows"]
    ordered += [row for row in short if row["way"] == "jpeg"]
    for row in ordered:
        ours, *peers = row["engines"]
        for peer, ratio in zip(peers, row["ratios"], strict=True):
            yield row, ours, peer, ratio


def interval(ratio: Row) -> str:
    """Return a ratio with its 95 % interval."""
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})"


def headline() -> str:
    """Return the README's one number."""
    (ratio,) = (
        ratio
        for row, _, peer, ratio in cpu_rows()
        if (row["way"], row["batch"], row["threads"]) == ("scores", 1, 2)
        and peer["engine"] == "onnxruntime"
    )
    return (
        f"**{ratio['ratio']:.1f} times as fast as onnxruntime** for one face in float32, on two "
        "cores of an AMD EPYC (Zen 4)."
    )


def cpu(chosen: Callable[[Row, Row], bool] = lambda row, peer: True) -> str:
    """Return a row for each peer, batch size and number of threads."""
    rows = []
    for row, ours, peer, ratio in cpu_rows():
        if chosen(row, peer):
            batch = (
                f"{row['batch']}" if row["way"] == "scores" else f"{row['batch']}, JPEG to label"
            )
            times = [f"{1e3 * each['p50'] / row['batch']:.2f}" for each in (peer, ours)]
            rows.append([peer["engine"], batch, str(row["threads"]), *times, interval(ratio)])
    header = ("peer", "batch", "threads", "peer, ms a face", "ferplus_tvm, ms a face", "ratio")
    return table(header, rows)


def cpu_short() -> str:
    """Return the README's rows: every peer at batch 1, and a large batch."""
    return cpu(
        lambda row, peer: (
            row["way"] == "scores"
            and row["threads"] == 2
            and (row["batch"] == 1 or (row["batch"] == 32 and peer["engine"] == "onnxruntime"))
        )
    )


def cold() -> str:
    """Return a row for each engine in a new process."""
    bench = report("bench")
    ratios = {each["peer"]: each for each in bench["cold_ratios"]}
    rows = []
    for each in bench["cold"]:
        ratio = ratios.get(each["engine"])
        parts = [each[name] for name in ("seconds", "importing", "opening", "answering")]
        sizes = ("private_dirty", "uss", "rss", "installed", "model")
        rows.append(
            [
                each["engine"],
                *(f"{seconds:.3f} s" for seconds in parts),
                *(f"{each[name] / 1e6:.0f} MB" for name in sizes),
                interval(ratio) if ratio else "",
            ]
        )
    header = ["engine", "first answer", "import", "open", "answer", "private dirty", "USS", "RSS"]
    return table([*header, "packages", "model", "ratio"], rows)


def gpu_rows(place: str) -> Iterator[tuple[str, int, Row, dict[str, Row]]]:
    """Give each precision and batch size, with our row and those of PyTorch."""
    suffix = ", on the GPU" if place == "device" else ""
    for precision in PRECISIONS:
        by_batch: dict[int, dict[str, Row]] = {}
        for row in report(f"gpu/{precision}")["rows"]:
            if row["engine"].endswith(", on the GPU") == (place == "device"):
                engines = by_batch.setdefault(row["batch"], {})
                name = row["engine"].removesuffix(suffix).removesuffix(f" {precision}")
                engines[name] = row
        for batch, engines in by_batch.items():
            yield precision, batch, engines.pop("ferplus_tvm"), engines


def gpu(
    place: str = "device",
    peers: Sequence[str] = ("PyTorch CUDA graph", "torch.compile", "PyTorch eager"),
    chosen: Callable[[str, int], bool] = lambda precision, batch: True,
) -> str:
    """Return a row for each precision and batch size, faces and scores in a place."""
    rows = []
    for precision, batch, ours, engines in gpu_rows(place):
        if chosen(precision, batch):
            row = [precision, str(batch), f"{ours['milliseconds']:.3f}"]
            row += [f"{ours['faces_per_second']:.0f}", f"{ours['share_of_peak']:.0%}"]
            for peer in peers:
                found = engines.get(peer)
                middle, low, high = found["over_ours"] if found else (0, 0, 0)
                row.append(f"{middle:.2f} ({low:.2f}..{high:.2f})" if found else "")
            rows.append(row)
    header = ["precision", "batch", "ferplus_tvm, ms", "faces a second", "of the peak"]
    return table([*header, *(f"ratio to {peer}" for peer in peers)], rows)


def gpu_short() -> str:
    """Return the README's rows: where we are fastest, level and slowest."""
    return gpu(
        peers=("PyTorch CUDA graph",),
        chosen=lambda precision, batch: (
            (precision, batch) in {("float32", 1), ("float32", 1024), ("float16", 32)}
        ),
    )


def photos() -> str:
    """Return a row for each file, number of threads and way."""
    rows = []
    for row in report("peers/photos")["rows"]:
        ratios = {each["peer"]: each for each in row["ratios"]}
        for peer in row["peers"]:
            ratio = ratios.get(peer["name"])
            same = "" if peer["note"] else f"{peer['same_label']}"
            cells = [row["name"], str(row["threads"]), peer["name"]]
            cells += [f"{peer['milliseconds'] / row['frames']:.1f}", f"{peer['per_second']:.1f}"]
            cells += [f"{peer['faces']} of {row['people'] * row['frames']}", same]
            rows.append([*cells, interval(ratio) if ratio else "", str(peer["calls"])])
    header = ["file", "threads", "way", "ms", "a second", "faces", "the same emotion", "ratio"]
    return table([*header, "calls"], rows)


def photos_on() -> str:
    """Return where the figures of `photos` come from."""
    found = report("peers/photos")
    versions = {}
    for row in found["rows"]:
        versions |= {peer["name"]: peer["version"] for peer in row["peers"]}
    named = ", ".join(f"{name} ({version})" for name, version in versions.items())
    left = "".join(f" Left out: {name} (`{why}`)." for name, why in found["left_out"].items())
    return f"{_machine(found)} {named}.{left}"


def detector() -> str:
    """Return a row for each size, number of threads and peer of the detector."""
    rows = [
        [
            *(row["size"], str(row["threads"]), f"{row['peer']} {row['version']}"),
            *(f"{row['peer_ms']:.2f}", f"{row['ours_ms']:.2f}", interval(row), str(row["calls"])),
        ]
        for row in report("peers/detector")["rows"]
    ]
    header = ["size", "threads", "peer", "peer, ms", "ferplus_tvm, ms", "ratio", "calls"]
    return table(header, rows)


def detector_on() -> str:
    """Return where the figures of `detector` come from."""
    return _machine(report("peers/detector"))


def _machine(found: Report) -> str:
    machine = found["environment"]
    system, _, _ = machine["system"].partition(" ")  # without the kernel's release
    return f"{machine['cpu']}, {machine['cpus_allowed']} CPUs, {system}."


def installed() -> str:
    """Return a row for each way that was installed."""
    rows = [
        [
            each["name"],
            f"{each['bytes'] / 1e6:.0f} MB",
            str(len(each["packages"])),
            each["also"],
        ]
        for each in report("peers/installed")["ways"]
        if "error" not in each
    ]
    return table(["way", "packages on the disk", "how many", "beside them"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "cpu-short": cpu_short,
    "gpu-short": gpu_short,
    "cpu": cpu,
    "cold": cold,
    "gpu-device": gpu,
    "gpu-host": lambda: gpu("host"),
    "photos": photos,
    "photos-on": photos_on,
    "detector": detector,
    "detector-on": detector_on,
    "installed": installed,
}


def render(page: str) -> str:
    """Return a page with every marked place filled in."""
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n", page)


def main() -> None:
    """Rewrite the pages."""
    for path in PAGES:
        path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
