"""The process of one way: ``PYTHON photo_worker.py NAME FOLDER THREADS``.

`photos.py` starts it in the way's own environment.  Orders and answers are lines of JSON; every
answer comes after the process has come to rest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from photo_peers import WAYS, Face

SAME = {"angry": "anger", "happy": "happiness", "sad": "sadness"}


def _labelled(faces: list[Face]) -> list[dict[str, Any]]:
    return [{"box": box, "label": SAME.get(label.lower(), label.lower())} for box, label in faces]


def _rest() -> bool:
    """Wait until threads spin no more, so that the next has the machine for itself."""
    end = time.perf_counter() + 3
    while time.perf_counter() < end:
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(0.02)
        if time.process_time() - busy < 0.05 * (time.perf_counter() - start):
            return True
    return False


class Worker:
    """Does what orders say."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self._open = lambda: WAYS[name](folder, threads)

    def open(self) -> dict[str, Any]:
        """Open the models."""
        self._way = self._open()
        return {"version": self._way.version, "note": self._way.note}

    def look(self, kind: str, path: str) -> dict[str, Any]:
        """Return the faces of a photo, or of each frame of a clip."""
        if kind == "photo":
            return {"faces": [_labelled(self._way.photo(path))]}
        return {"faces": [_labelled(faces) for faces in self._way.clip(path)]}

    def turn(self, kind: str, path: str, calls: int, dropped: int) -> dict[str, Any]:
        """Return the seconds of so many calls, after some that wake threads and caches."""
        seconds = []
        for _ in range(calls + dropped):
            start = time.perf_counter()
            if kind == "photo":
                self._way.photo(path)
            else:
                for _ in self._way.clip(path):
                    pass
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds[dropped:]}


def main() -> None:
    """Answer orders until there are no more."""
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):  # some have no option for the number of threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints is no answer
    worker = Worker(name, folder, threads)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            told = getattr(worker, order.pop("order"))(**order)
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
        told["rests"] = _rest()
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
