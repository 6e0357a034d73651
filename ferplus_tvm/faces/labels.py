"""The eight emotions of FER+, in the order of its scores."""

from __future__ import annotations

EMOTIONS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
