"""Which model of the zoo someone means who gives a name that is not quite one of its names."""

from __future__ import annotations

import difflib
import re
from pathlib import PurePath

from ferplus_tvm.zoo.models import MODELS

NEWEST = "emotion-ferplus-8"
"""The newest official model that can be compiled."""

_INT8 = next(model.name for model in MODELS if model.unsupported)
_SHORT = ("fer", "emotion", "official")
_SUFFIXES = (".onnx", ".tar.gz", ".tgz", ".gz", ".tar")


def nearest(given: str) -> str | None:
    """Return what to give instead of a name or a path that does not exist, as a clause, or None.

    Official models are recognised by their family and version, others by similar letters.

    Parameters
    ----------
    given
        What the user gave, such as ``ferplus-12`` or ``models/emotion_ferplus-8.onnx``.
    """
    path = PurePath(given)
    stem = path.parent.name if path.stem == "model" else path.name  # as in the zoo's archives
    stem = stem.lower()
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    letters = re.sub("[^a-z0-9]", "", stem.replace("fer+", "ferplus"))
    if "ferplus" in letters or letters in _SHORT:
        versions = re.findall(r"\d+", letters.replace("int8", ""))
        if "12" in versions or "int8" in letters or "quant" in letters:
            return (
                f"give {NEWEST!r}, since the zoo has version 12 only as int8 ({_INT8!r}), which "
                "cannot be compiled yet"
            )
        same = [model.name for model in MODELS[1:] if model.name.rpartition("-")[2] in versions]
        return f"give the zoo's name {(same or [NEWEST])[0]!r}"
    close = difflib.get_close_matches(stem, [model.name for model in MODELS], n=1)
    return f"give the zoo's name {close[0]!r}" if close else None
