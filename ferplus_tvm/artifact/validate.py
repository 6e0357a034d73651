"""Refuse a manifest whose fields contradict each other or cannot be, which no checksum tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ferplus_tvm.artifact.layout import ITEM_BYTES

if TYPE_CHECKING:
    from ferplus_tvm.artifact.manifest import Manifest

CHANNELS = (1, 3)
"""The numbers of channels that a face may have: grey, or RGB."""

SIZES = range(32, 225)
"""The heights and widths that a face may have, in pixels."""

CLASSES = range(2, 65)
"""The numbers of classes that a model may have."""


def validate(manifest: Manifest) -> None:
    """See that a manifest, whose fields have the right types, describes a library that can be.

    Raises
    ------
    ValueError
        If it does not.
    """
    wrong = (
        _wrong_interface(manifest)
        or _wrong_number(manifest)
        or _wrong_weights(manifest)
        or _wrong_detector(manifest)
    )
    if wrong:
        raise ValueError(wrong)


def _wrong_interface(manifest: Manifest) -> str | None:
    """Return what cannot be in what goes in and what comes out."""
    shape, labels, check = manifest.input_shape, manifest.labels, manifest.check
    if not (
        len(shape) == 4
        and shape[0] == "N"
        and shape[1] in CHANNELS
        and shape[2] == shape[3]
        and shape[2] in SIZES
    ):
        return f"its input shape {shape} cannot be"
    classes = len(labels)
    if classes not in CLASSES or manifest.output_shape != ("N", classes):
        return f"its output shape {manifest.output_shape} and its {classes} labels cannot be"
    if len(set(labels)) != classes or not all(label.strip() for label in labels):
        return "its labels are not names of their own"
    if manifest.value_range != (0, 255):
        return "its value range is not 0..255"
    if manifest.scaling.channels not in (None, shape[1]):
        return "its scaling is for another number of channels"
    if not 0 <= check.seed < 1 << 32:
        return "its check's seed cannot be"
    if len(check.reference) != check.faces or not check.reference:
        return "its check has no row of scores for each face"
    if {len(row) for row in check.reference} != {classes}:
        return "its check has no score for each label"
    return None


def _wrong_number(manifest: Manifest) -> str | None:
    """Return which number cannot be."""
    if manifest.gpu_arch and not re.fullmatch(r"sm_[1-9]\d{1,2}", manifest.gpu_arch):
        return "its GPU architecture cannot be"
    if not 0 < manifest.check.tolerance <= 1:
        return "its tolerance cannot be"
    lengths = (manifest.image_offset, manifest.image_bytes, manifest.weights_bytes)
    if min(*lengths, manifest.chunk_bytes) < 0:
        return "its lengths cannot be"
    for kernel in manifest.kernels:
        if min(kernel.flops, kernel.executed_flops, kernel.activation_bytes) < 0:
            return f"its kernel {kernel.kernel!r} cannot be"
    return None


def _wrong_weights(manifest: Manifest) -> str | None:
    """Return which weight, or which function that takes weights, cannot be."""
    for tensor in manifest.tensors:
        if tensor.dtype not in ITEM_BYTES or tensor.offset < 0 or min(tensor.shape, default=0) < 0:
            return f"its weight {tensor.name!r} cannot be"
    for batch, function in manifest.functions.items():
        if batch < 1 or not all(0 <= each < len(manifest.tensors) for each in function.weights):
            return f"its function for batch {batch} takes weights that are not there"
    return None if manifest.functions else "it has no functions"


def _wrong_detector(manifest: Manifest) -> str | None:
    """Return what of the detector cannot be."""
    if manifest.detector is None:
        return None
    if manifest.gpu_arch:
        return "it is for a GPU and has a detector, which runs on CPUs only"
    return manifest.detector.wrong(len(manifest.tensors))
