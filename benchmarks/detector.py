"""Measure a library's face detector beside other engines with the same file.

    pip install '.[bench,opencv]'      # or '.[openvino,opencv]', to measure that as well
    ferplus-tvm compile --detector -o ferplus.so
    python benchmarks/detector.py ferplus.so --json docs/peers/detector.json

The same picture of each of the library's sizes and the same number of threads, in turns; no engine
spins while another one computes.  `onnxruntime` and `openvino` compute the network's outputs of a
picture that has become float32 before; ours reads its bytes.  `opencv` finds the faces, decoding
and all, as does `detect`, ours.  A ratio is the peer's time over ours in the same round: the
median, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from photo_files import people

import ferplus_tvm as fer
from ferplus_tvm import zoo
from ferplus_tvm.bench import environment
from ferplus_tvm.bench.timing.samples import paired_ratio
from ferplus_tvm.host import cpu
from ferplus_tvm.importer.detector import HEADS, STRIDES, load_detector
from ferplus_tvm.tuning.paired_timing import take_rounds

TOLERANCE = 1e-4  # between two engines, in probabilities and cells
_CALLS = 10  # of a turn, after one that is not counted
_FEWEST_ROUNDS = 20

Run = Callable[[], Any]


def network(engine: fer.Engine, picture: NDArray[np.uint8]) -> Run:
    """Return what computes the network's outputs (A, 16) of a picture, ours."""
    size = picture.shape[:2]
    return lambda: engine.on_session(lambda session: session.detect(picture, size))


def onnxruntime(picture: NDArray[np.uint8], threads: int) -> Run:
    """Return what computes them with onnxruntime."""
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(_model(picture), options, providers=["CPUExecutionProvider"])
    names = [f"{head}_{stride}" for stride in STRIDES for head in HEADS]
    given = {session.get_inputs()[0].name: _blob(picture)}
    return lambda: _joined(session.run(names, given))


def openvino(picture: NDArray[np.uint8], threads: int) -> Run:
    """Return what computes them with OpenVINO, in float32."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(_model(picture)),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads},
    )
    request = compiled.create_infer_request()
    blob = _blob(picture)
    outputs = [compiled.output(f"{head}_{stride}") for stride in STRIDES for head in HEADS]

    def run() -> Any:
        found = request.infer([blob])
        return _joined([found[output] for output in outputs])

    return run


def opencv(picture: NDArray[np.uint8], threads: int) -> Run:
    """Return what finds the faces with OpenCV."""
    import cv2

    cv2.setNumThreads(threads)
    height, width = picture.shape[:2]
    detector = cv2.FaceDetectorYN.create(str(zoo.verify(zoo.DETECTOR)), "", (width, height), 0.6)
    bgr = np.ascontiguousarray(picture[..., ::-1])

    def run() -> NDArray[np.float32]:
        rows = detector.detect(bgr)[1]
        return np.empty((0, 4), np.float32) if rows is None else rows[:, :4]

    return run


def _model(picture: NDArray[np.uint8]) -> bytes:
    model = load_detector(zoo.verify(zoo.DETECTOR)).sized(*picture.shape[:2])
    return bytes(model.SerializeToString())


def _blob(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture[np.newaxis, ..., ::-1].transpose(0, 3, 1, 2), np.float32)


def _joined(outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put the twelve outputs together as ours has them."""
    grids = [np.concatenate(outputs[at : at + 4], axis=2)[0] for at in range(0, 12, 4)]
    return np.concatenate(grids)


def measure(
    name: str, ours: Run, peer: Run, size: tuple[int, int], threads: int, seconds: float
) -> dict[str, Any]:
    """Compare the answers of two, and then their times.

    Raises
    ------
    RuntimeError
        If the answers differ.
    """
    own, other = ours(), peer()
    if name == "opencv":
        own = np.array([face.box for face in own]).reshape(-1, 4)
        tolerance = 0.5  # of a pixel
    else:
        tolerance = TOLERANCE
    if own.shape != other.shape or not np.allclose(own, other, rtol=0, atol=tolerance):
        raise RuntimeError(f"{name} gives another answer for {size[1]}x{size[0]}")
    runs = [ours, peer]

    def take_turns(order: list[int]) -> list[list[float]]:
        return [turn(runs[at]) for at in order]

    rounds = take_rounds(2, take_turns, seconds, _FEWEST_ROUNDS)
    middle = 1e3 * np.median(rounds.times, axis=0)
    return {
        "peer": name,
        "version": importlib.metadata.version(
            "opencv-python-headless" if name == "opencv" else name
        ),
        "size": f"{size[1]}x{size[0]}",
        "threads": threads,
        "calls": _CALLS * len(rounds.orders),
        "ours_ms": float(middle[0]),
        "peer_ms": float(middle[1]),
        "largest_difference": float(np.abs(own - other).max(initial=0)),
        **asdict(paired_ratio(name, rounds, 1)),
    }


def turn(run: Run) -> list[float]:
    """Return the seconds of some calls, after one that wakes threads and caches."""
    run()
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def print_row(row: dict[str, Any]) -> None:
    """Print what was measured with one peer and size."""
    print(
        f"{row['size']:>9}  threads {row['threads']}  {row['peer']:<12} {row['peer_ms']:7.2f} ms, "
        f"ours {row['ours_ms']:6.2f} ms  {row['ratio']:.2f} ({row['low']:.2f}..{row['high']:.2f})"
    )


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", type=Path, help="compiled with --detector")
    parser.add_argument("--peers", default="onnxruntime,openvino,opencv")
    parser.add_argument("--threads", default=f"1,{cpu.default_threads()}")
    parser.add_argument("--seconds", type=float, default=20, help="for each peer and size")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    rows = []
    for threads in sorted({int(each) for each in given.threads.split(",")}):
        with fer.load(given.library, threads=threads) as engine:
            detector = engine.manifest.detector
            if detector is None:
                parser.error(f"{given.library} has no face detector: compile it with --detector")
            for size in detector.sizes:
                picture = np.asarray(people(640, 2).resize(size[::-1]))
                for name in given.peers.split(","):
                    try:
                        peer = PEERS[name](picture, threads)
                    except ImportError as error:
                        print(f"{name} is left out: {error}")
                        continue
                    ours = (
                        (lambda picture=picture: engine.detect(picture))
                        if name == "opencv"
                        else network(engine, picture)
                    )
                    row = measure(name, ours, peer, size, threads, given.seconds)
                    print_row(row)
                    rows.append(row)
    if given.json is not None:
        report = {"environment": environment.record(), "rows": rows}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


PEERS: dict[str, Callable[[NDArray[np.uint8], int], Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "opencv": opencv,
}

if __name__ == "__main__":
    main()
