"""Hints: what a file's ``metadata_props`` say of its classes and of the pixels that it wants.

The keys are those that people and exporters write: free ones such as ``labels`` and ``mean``,
``names`` of ultralytics, ``id2label`` of transformers, and the ``Image.*`` of onnx's own
MetadataProps.md, which Windows ML reads.  The text may come from anywhere: it is not read if long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.errors import one_line
from ferplus_tvm.importer.labels import LONGEST_TEXT, labels_in, labels_of, same_order

_LABELS = (
    "labels",
    "class_names",
    "classes",
    "names",
    "classnames",
    "label_names",
    "class_labels",
    "categories",
    "emotions",
    "emotion_labels",
    "id2label",
    "label2id",
    "idx_to_class",
    "class_to_idx",
    "class_indices",
)
_NOMINAL = "image.nominalpixelrange"
_RANGES = ("input_range", "pixel_range", "value_range", _NOMINAL)
_MEANS = ("mean", "pixel_mean", "image_mean", "input_mean", "norm_mean")
_STDS = ("std", "pixel_std", "image_std", "input_std", "norm_std")
_NOMINAL_RANGES = {
    "nominalrange_0_255": (0.0, 255.0),
    "normalized_0_1": (0.0, 1.0),
    "normalized_1_1": (-1.0, 1.0),
    "nominalrange_16_235": (16.0, 235.0),
}
_FORMAT_KEYS = (
    "image.bitmappixelformat",
    "pixel_format",
    "color_format",
    "color_space",
    "channel_order",
)
_FORMATS = {"rgb8": "RGB", "rgb": "RGB", "bgr8": "BGR", "bgr": "BGR"} | dict.fromkeys(
    ("gray8", "gray", "grey", "grayscale", "greyscale", "l"), "grey"
)
_SHOWN = 80  # characters of an entry that a message shows


@dataclass(frozen=True)
class Hints:
    """What was found.

    Attributes
    ----------
    labels
        The names of as many classes as the model has, or None.
    labels_from
        The key that they stand under.
    scaling
        What becomes of pixels before the file gets them, or None.
    scaling_from
        The keys that it stands under.
    pixel_format
        ``grey``, ``RGB`` or ``BGR``, or "".
    pixel_format_from
        The key that it stands under.
    unclear_labels, unclear_scaling
        Sentences about entries that cannot be what they seem to be, or contradict each other.
    """

    labels: tuple[str, ...] | None
    labels_from: str
    scaling: Scaling | None
    scaling_from: str
    pixel_format: str
    pixel_format_from: str
    unclear_labels: tuple[str, ...]
    unclear_scaling: tuple[str, ...]


def read_hints(metadata: Mapping[str, str], classes: int, channels: int) -> Hints:
    """Return what a file's metadata say.

    Parameters
    ----------
    metadata
        The text by key.  Whether a key has capitals, dashes or spaces does not matter.
    classes, channels
        Those of the model.
    """
    entries = {re.sub(r"[\s-]+", "_", key.strip().lower()): key for key in metadata}
    found = {plain: metadata[key] for plain, key in entries.items()}
    unclear_labels: list[str] = []
    unclear_scaling: list[str] = []
    labels, labels_from = _read_labels(found, entries, classes, unclear_labels)
    scaling, scaling_from = _read_scaling(found, entries, channels, unclear_scaling)
    formats = {
        _FORMATS[found[plain].strip().lower()]: entries[plain]
        for plain in _FORMAT_KEYS
        if found.get(plain, "").strip().lower() in _FORMATS
    }
    pixel_format, pixel_format_from = next(iter(formats.items()), ("", ""))
    return Hints(
        labels,
        labels_from,
        scaling,
        scaling_from,
        pixel_format,
        pixel_format_from,
        tuple(unclear_labels),
        tuple(unclear_scaling),
    )


def _read_labels(
    found: Mapping[str, str], entries: Mapping[str, str], classes: int, unclear: list[str]
) -> tuple[tuple[str, ...] | None, str]:
    """Return the names of the classes, and their key."""
    taken: tuple[str, ...] | None = None
    taken_from = ""
    for plain in _LABELS:
        text = found.get(plain, "").strip()
        if not text or re.fullmatch(r"\d+", text):  # a number of classes
            continue
        key = entries[plain]
        try:
            names = _names(text)
            if len(names) != classes:
                raise ValueError(f"{len(names)} names for a model of {classes} classes")
        except ValueError as error:
            unclear.append(
                f"the file's metadata has {key} {_shown(text)}, which is passed over "
                f"({one_line(error)})"
            )
            continue
        if taken is None:
            taken, taken_from = names, key
        elif not same_order(names, taken):
            unclear.append(
                f"the file's metadata has {taken_from} {', '.join(taken)}, but {key} "
                f"{', '.join(names)}, which is passed over"
            )
    return taken, taken_from


def _names(text: str) -> tuple[str, ...]:
    """Return the names in an entry.

    Raises
    ------
    ValueError
        If there are none.
    """
    names = labels_in(text)
    if names is None:
        raise ValueError("it is no list of names")
    if names and all(re.fullmatch(r"(?:label|class)?[ _]?\d+", name.lower()) for name in names):
        raise ValueError("these are numbers, not names")  # such as LABEL_0 of transformers
    return labels_of(names)


def _read_scaling(
    found: Mapping[str, str], entries: Mapping[str, str], channels: int, unclear: list[str]
) -> tuple[Scaling | None, str]:
    """Return the scaling, and its keys."""
    given: dict[str, Any] = {}
    used: dict[str, str] = {}  # the key of each
    for name, keys in (("input_range", _RANGES), ("mean", _MEANS), ("std", _STDS)):
        for plain in keys:
            text = found.get(plain, "").strip()
            if not text:
                continue
            numbers = _NOMINAL_RANGES.get(text.lower()) if plain == _NOMINAL else _numbers(text)
            if name not in given:
                given[name], used[name] = numbers, plain
            elif numbers != given[name]:
                first = used[name]
                unclear.append(
                    f"the file's metadata has {entries[first]} {_shown(found[first])}, but "
                    f"{entries[plain]} {_shown(text)}, which is passed over"
                )
    shown = " and ".join(f"{entries[plain]} {_shown(found[plain])}" for plain in used.values())
    try:
        if None in given.values():
            raise ValueError("expected one to three numbers")
        scaling = Scaling.of(**given)
        if scaling is not None and scaling.channels not in (None, channels):
            raise ValueError(f"numbers of {scaling.channels} channels for a model of {channels}")
    except (ValueError, OverflowError) as error:
        unclear.append(f"the file's metadata has {shown}, which is passed over ({one_line(error)})")
        return None, ""
    return scaling, " and ".join(entries[plain] for plain in used.values())


def _numbers(text: str) -> tuple[float, ...] | None:
    """Return up to three numbers of an entry such as ``0.5``, ``[0, 1]``, ``0..1`` or ``0-255``."""
    if len(text) > LONGEST_TEXT:
        return None
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
    inside = re.sub(r"(?<=\d)(?:\s*\.\.\.?\s*|\s+to\s+|-)(?=[-+.\d])", " ", text.strip("[]() \t\n"))
    parts = re.split(r"\s*[,;]\s*|\s+", inside.rstrip(" ,"))
    if len(parts) > 3 or not all(re.fullmatch(number, part, re.IGNORECASE) for part in parts):
        return None
    return tuple(map(float, parts))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
