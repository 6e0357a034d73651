"""Measure whole photos and clips beside the libraries that people use.

    pip install '.[bench,opencv,video]'
    python benchmarks/installed_size.py --keep peers    # each peer in an environment of its own
    ferplus-tvm compile --detector -o ferplus.so
    python benchmarks/photos.py ferplus.so --peers-in peers --json docs/bench-photos.json

From a JPEG file to faces with emotions, and from a video file to the faces of its last frame: the
same files and the same number of threads, each peer in a process of its own, in turns.  A ratio is
the peer's time over ours in the same round: the median, with its 95 % interval.  A peer that cannot
be opened is left out, and why is said.  `photo_peers.py` has what each of them does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from photo_files import OURS, people, write_clip, write_models

from ferplus_tvm.bench import environment
from ferplus_tvm.bench.timing.samples import paired_ratio
from ferplus_tvm.host import cpu
from ferplus_tvm.tuning.paired_timing import take_rounds

PEERS = ("opencv", "onnxruntime", "deepface", "fer", "emotiefflib")
WORKER = Path(__file__).with_name("photo_worker.py")
SIZES = (640, 1280, 4000)
_TURN = 0.2  # seconds of calls
_MOST_CALLS = 20  # of a turn
_LONG = 1.0  # seconds of a call, which needs no other one before it
_FEWEST_ROUNDS = 6  # whose whole range is an interval of more than 95 %
_SAME = 0.4  # intersection over union from which two boxes are of one face


class Peer:
    """A process that takes photos."""

    def __init__(self, name: str, python: Path, folder: Path, threads: int) -> None:
        """Start it and open its models.

        Raises
        ------
        RuntimeError
            If it cannot be opened; the message says why.
        """
        self.name = name
        variables = {**os.environ, "OMP_NUM_THREADS": f"{threads}", "TF_CPP_MIN_LOG_LEVEL": "3"}
        variables |= {f"TF_NUM_{part}OP_THREADS": f"{threads}" for part in ("INTRA", "INTER")}
        if python != Path(sys.executable):
            variables.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, WORKER, name, folder, f"{threads}"],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            told = self.ask("open")
        except BaseException:
            self.close()
            raise
        self.version, self.note = str(told["version"]), str(told["note"])
        self.restless = 0

    def ask(self, order: str, **options: Any) -> dict[str, Any]:
        """Give an order; return the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"order": order, **options}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, which the next line tells
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with status {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise RuntimeError(told["error"])
        if order == "turn":
            self.restless += not told["rests"]
        return told

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, int]:
    """Count faces over all frames: found, those of them that we found too, with the same label."""
    found = both = same = 0
    for own, other in zip(ours, theirs, strict=True):
        found += len(other)
        for face in other:
            near = [each for each in own if overlap(each["box"], face["box"]) > _SAME]
            both += bool(near)
            same += any(each["label"] == face["label"] for each in near)
    return {"faces": found, "as_ours": both, "same_label": same}


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    sides = [
        min(one[at] + one[at + 2], other[at] + other[at + 2]) - max(one[at], other[at])
        for at in (0, 1)
    ]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def measure(peers: Sequence[Peer], what: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Measure peers, of which the first is ours, with one file."""
    given = {"kind": what["kind"], "path": what["path"]}
    looks = [peer.ask("look", **given)["faces"] for peer in peers]
    first = [peer.ask("turn", calls=1, dropped=0, **given)["seconds"][0] for peer in peers]
    dropped = [int(each < _LONG) for each in first]
    turn = min(_TURN, seconds / _FEWEST_ROUNDS / len(peers))
    calls = [max(1, min(_MOST_CALLS, round(turn / each))) for each in first]

    def take_turns(order: list[int]) -> list[list[float]]:
        return [
            peers[at].ask("turn", calls=calls[at], dropped=dropped[at], **given)["seconds"]
            for at in order
        ]

    rounds = take_rounds(len(peers), take_turns, seconds, _FEWEST_ROUNDS)
    middle = np.median(rounds.times, axis=0)
    frames = len(looks[0])
    return {
        **{name: value for name, value in what.items() if name != "path"},
        "frames": frames,
        "rounds": len(rounds.orders),
        "peers": [
            {
                "name": peer.name,
                "version": peer.version,
                "note": peer.note,
                "milliseconds": 1e3 * middle[at],
                "per_second": frames / middle[at],
                "calls": calls[at] * len(rounds.orders),
                **agreement(looks[0], looks[at]),
            }
            for at, peer in enumerate(peers)
        ],
        "ratios": [asdict(paired_ratio(peers[at].name, rounds, at)) for at in range(1, len(peers))],
    }


def python_of(name: str, peers_in: Path | None) -> Path:
    """Return the interpreter of a peer: that of its own environment, or this one."""
    own = None if peers_in is None else peers_in / name / "bin" / "python"
    return own if own is not None and own.exists() else Path(sys.executable)


def print_row(row: dict[str, Any]) -> None:
    """Print what was measured with one file."""
    every = "frames" if row["kind"] == "clip" else "photos"
    print(f"\n{row['name']}, {row['people']} people, threads: {row['threads']}")
    ratios = {each["peer"]: each for each in row["ratios"]}
    for peer in row["peers"]:
        ratio = ratios.get(peer["name"])
        said = f"{ratio['ratio']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})" if ratio else ""
        print(
            f"  {peer['name']:<12} {peer['milliseconds']:9.1f} ms {peer['per_second']:8.2f} {every}"
            f"/s  {peer['calls']:>4} calls  {peer['faces']} faces, {peer['as_ours']} as ours, "
            f"{peer['same_label']} with the same emotion  {said}  {peer['note']}"
        )


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", type=Path, help="compiled with --detector")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    parser.add_argument("--peers-in", type=Path, help="a folder of environments named as they are")
    parser.add_argument("--threads", default=f"1,{cpu.default_threads()}")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="widths in pixels")
    parser.add_argument("--clip", type=float, default=2, help="seconds of the clip; 0 for none")
    parser.add_argument("--model", default="bundled", help="the model that the library holds")
    parser.add_argument("--seconds", type=float, default=60, help="for each file")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    names = [OURS, *(name for name in options.peers.split(",") if name)]
    threads = sorted({int(count) for count in options.threads.split(",")})
    rows, left_out = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(options.library, options.model, folder)
        people(640, 2).save(folder / "any.jpg")
        files = []
        for width in map(int, options.sizes.split(",")):
            for count in (2, 8):
                path = folder / f"{width}-{count}.jpg"
                people(width, count).save(path, quality=90)
                size = f"JPEG of {width} x {width * 3 // 4}"
                files.append({"kind": "photo", "path": str(path), "name": size, "people": count})
        if options.clip and write_clip(folder / "clip.mp4", options.clip):
            clip = {"kind": "clip", "path": str(folder / "clip.mp4"), "people": 2}
            files.append({**clip, "name": "H.264 of 640 x 480"})
        for count in threads:
            peers: list[Peer] = []
            try:
                for name in names:
                    python = python_of(name, options.peers_in)
                    try:
                        peers.append(Peer(name, python, folder, count))
                    except RuntimeError as error:
                        if name == OURS:
                            raise
                        left_out[name] = str(error)
                        print(f"{name} is left out: {error}")
                for what in files:
                    row = measure(peers, {**what, "threads": count}, options.seconds)
                    rows.append(row)
                    print_row(row)
            finally:
                for peer in peers:
                    peer.close()
    if options.json:
        record = {"environment": environment.record(), "left_out": left_out, "rows": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
