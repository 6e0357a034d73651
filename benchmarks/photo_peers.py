"""Ways from a photo to faces with emotions: ours, and those of others.

Each is opened with a folder of models, ``ferplus.so``, ``ferplus.onnx`` and ``yunet.onnx``, and a
number of threads.  This file needs the standard library, and what the way itself needs.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SIDE = 640  # to which a photo's longer side is shrunk before faces are looked for
MIN_SCORE = 0.6
CROP = 1.3  # the side of the square, in widths of the face
EMOTIONS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
)

Face = tuple[list[float], str]  # x, y, width, height; the emotion
Photo = Callable[[str], list[Face]]
Clip = Callable[[str], Iterator[list[Face]]]


class Way(NamedTuple):
    """How a peer is used, and what it says of itself."""

    photo: Photo
    clip: Clip
    version: str
    note: str = ""


def frames(path: str) -> Iterator[Any]:
    """Give the frames of a clip as OpenCV reads them: BGR."""
    import cv2

    clip = cv2.VideoCapture(path)
    while True:
        there, frame = clip.read()
        if not there:
            return
        yield frame


def way_of(look: Callable[[Any], list[Face]], version: str, note: str = "") -> Way:
    """Make a way of what takes one picture as OpenCV reads it."""
    import cv2

    return Way(
        lambda path: look(cv2.imread(path)),
        lambda path: (look(frame) for frame in frames(path)),
        version,
        note,
    )


def ferplus_tvm(folder: Path, threads: int) -> Way:
    """Open our library."""
    import ferplus_tvm as fer

    engine = fer.load(folder / "ferplus.so", threads=threads)

    def faces(found: Any) -> list[Face]:
        return [(list(face.box), face.prediction.label) for face in found]

    return Way(
        lambda path: faces(engine.analyze(path).faces),
        lambda path: (faces(frame.faces) for frame in fer.video(path, engine, detect_every=1)),
        fer.__version__,
    )


def opencv(folder: Path, threads: int) -> Way:
    """Build what one writes in an evening: OpenCV's detector, and onnxruntime for the emotions."""
    import cv2

    detector = cv2.FaceDetectorYN.create(str(folder / "yunet.onnx"), "", (SIDE, SIDE), MIN_SCORE)

    def detect(picture: Any) -> Any:
        detector.setInputSize(picture.shape[1::-1])
        rows = detector.detect(picture)[1]
        return [] if rows is None else rows[:, :4]

    return _pipeline(detect, _session(folder / "ferplus.onnx", threads), threads)


def onnxruntime(folder: Path, threads: int) -> Way:
    """Build the same with the detector, too, in onnxruntime."""
    import cv2
    import numpy as np

    session = _session(folder / "yunet.onnx", threads)
    heads = [f"{head}_{stride}" for head in ("cls", "obj", "bbox") for stride in (8, 16, 32)]

    def detect(picture: Any) -> Any:
        height, width = (-(-side // 32) * 32 for side in picture.shape[:2])
        padded = np.zeros((1, 3, height, width), np.float32)
        padded[0, :, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
        found = session.run(heads, {"input": padded})
        boxes, scores = [], []
        for at, stride in enumerate((8, 16, 32)):
            score = np.sqrt(found[at][0, :, 0] * found[3 + at][0, :, 0])
            (places,) = np.nonzero(score >= MIN_SCORE)
            x, y, wide, high = found[6 + at][0, places].T
            rows, columns = np.divmod(places, width // stride)
            wide, high = np.exp(wide) * stride, np.exp(high) * stride
            left, top = (columns + x) * stride - wide / 2, (rows + y) * stride - high / 2
            boxes.append(np.stack([left, top, wide, high], -1))
            scores.append(score[places])
        every, sure = np.concatenate(boxes), np.concatenate(scores)
        return every[list(cv2.dnn.NMSBoxes(every.tolist(), sure.tolist(), MIN_SCORE, 0.3))]

    return _pipeline(detect, _session(folder / "ferplus.onnx", threads), threads)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _pipeline(detect: Callable[[Any], Any], session: Any, threads: int) -> Way:
    """Join a detector of BGR pictures and the emotion model: the faces of a photo in one batch."""
    import cv2
    import numpy as np

    cv2.setNumThreads(threads)
    given = session.get_inputs()[0].name

    def crop(picture: Any, box: Any) -> Any:
        side = CROP * box[2]
        left, top = round(box[0] + (box[2] - side) / 2), round(box[1] + (box[3] - side) / 2)
        right, bottom = left + round(side), top + round(side)
        part = picture[max(top, 0) : bottom, max(left, 0) : right]
        part = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
        beyond = (-top, bottom - picture.shape[0], -left, right - picture.shape[1])
        if max(beyond) > 0:
            sides = [max(each, 0) for each in beyond]
            part = cv2.copyMakeBorder(part, *sides, cv2.BORDER_REPLICATE)
        return cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA)

    def look(picture: Any) -> list[Face]:
        scale = max(1.0, max(picture.shape) / SIDE)
        small = picture
        if scale > 1:
            small = cv2.resize(picture, None, fx=1 / scale, fy=1 / scale)
        boxes = [[float(each) * scale for each in box] for box in detect(small)]
        if not boxes:
            return []
        crops = np.array([crop(picture, box) for box in boxes], np.float32)[:, np.newaxis]
        scores = session.run(None, {given: crops})[0]
        return [(box, EMOTIONS[at]) for box, at in zip(boxes, scores.argmax(1), strict=True)]

    return way_of(look, f"OpenCV {cv2.__version__}, onnxruntime {_version('onnxruntime')}")


def deepface(folder: Path, threads: int) -> Way:
    """Use deepface with YuNet, the detector of ours, which is among its fastest.

    Its models are those in ``~/.deepface``, or are downloaded; where that is impossible it gets
    the detector's file, and for the emotions a model of the same layers with random weights.
    """
    import cv2

    cv2.setNumThreads(threads)
    os.environ["DEEPFACE_BACKEND_ENGINE"] = "onnx"  # its fastest
    from deepface import DeepFace

    def look(picture: Any) -> list[Face]:
        try:
            found = DeepFace.analyze(
                picture, actions=["emotion"], detector_backend="yunet", silent=True
            )
        except ValueError as error:
            if "could not be detected" in str(error):
                return []
            raise
        return [
            ([float(each["region"][name]) for name in "xywh"], each["dominant_emotion"])
            for each in found
        ]

    note = ""
    try:
        look(cv2.imread(str(folder / "any.jpg")))
    except (ValueError, OSError):
        os.environ["DEEPFACE_HOME"] = str(folder / "deepface")
        look(cv2.imread(str(folder / "any.jpg")))
        note = "random weights: speed alone"
    return way_of(look, _version("deepface"), note)


def fer(folder: Path, threads: int) -> Way:
    """Use fer with its default detector, OpenCV's cascade; its MTCNN takes far longer."""
    import cv2

    cv2.setNumThreads(threads)
    from fer.fer import FER

    detector = FER()

    def look(picture: Any) -> list[Face]:
        return [
            (
                [float(each) for each in found["box"]],
                max(found["emotions"], key=found["emotions"].get),
            )
            for found in detector.detect_emotions(picture)
        ]

    return way_of(look, _version("fer"))


def emotiefflib(folder: Path, threads: int) -> Way:
    """Use EmotiEffLib's smallest model on the faces that OpenCV's detector finds.

    It has no detector of its own.  The model is downloaded.
    """
    import cv2
    import numpy as np
    from emotiefflib.facial_analysis import EmotiEffLibRecognizer

    cv2.setNumThreads(threads)
    recognizer = EmotiEffLibRecognizer("onnx", "enet_b0_8_best_afew")
    detector = cv2.FaceDetectorYN.create(str(folder / "yunet.onnx"), "", (SIDE, SIDE), MIN_SCORE)

    def look(picture: Any) -> list[Face]:
        scale = max(1.0, max(picture.shape) / SIDE)
        small = cv2.resize(picture, None, fx=1 / scale, fy=1 / scale) if scale > 1 else picture
        detector.setInputSize(small.shape[1::-1])
        rows = detector.detect(small)[1]
        if rows is None:
            return []
        boxes = [[float(each) * scale for each in row[:4]] for row in rows]
        corners = [
            [max(round(x), 0), max(round(y), 0), round(x + w), round(y + h)] for x, y, w, h in boxes
        ]
        faces = [
            np.ascontiguousarray(picture[top:bottom, left:right, ::-1])
            for left, top, right, bottom in corners
        ]
        labels = recognizer.predict_emotions(faces, logits=False)[0]
        return list(zip(boxes, labels, strict=True))

    return way_of(look, _version("emotiefflib"))


WAYS: dict[str, Callable[[Path, int], Way]] = {
    each.__name__: each for each in (ferplus_tvm, opencv, onnxruntime, deepface, fer, emotiefflib)
}


def _version(package: str) -> str:
    return importlib.metadata.version(package)
