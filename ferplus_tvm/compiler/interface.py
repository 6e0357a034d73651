"""The interface of a model: what its graph does not say of the pixels that it wants and its labels.

What the caller states comes first, then what the file's metadata say, and then an assumption, which
is told in a warning, except for what cannot be meant otherwise:

- a graph that brings raw pixels 0..255 to usual numbers by itself is given raw pixels;
- the network of FER+, with the scaling of FER+ in its graph and eight scores, has FER+'s labels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import numpy as np

from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.compiler.input_scaling import InputScaling
from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.importer import ImportedModel, load_model
from ferplus_tvm.importer.hints import Hints, read_hints
from ferplus_tvm.importer.labels import ORDERS, same_order

_STATE_PIXELS = (
    "state what the network was trained on by input_range=(0, 1) or (0, 255), with mean= and std= "
    "where it was normalised (--input-range, --mean, --std)"
)
_FERPLUS = [
    *("Sub", "Mul"),
    *(["Conv", "Relu"] * 2 + ["MaxPool"]) * 2,
    *(["Conv", "Relu"] * 3 + ["MaxPool"]) * 2,
    *("Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"),
]


@dataclass(frozen=True)
class Interface:
    """What a library is told of its model.

    Attributes
    ----------
    scaling
        What becomes of raw pixels before the file gets them.
    labels
        The names of the classes, in the order of the scores.
    warnings
        Sentences about what was assumed or is contradicted, and how to state it.
    notes
        Sentences about what was taken from the file.
    graph_scales
        Whether the file's graph itself scales its input.
    """

    scaling: Scaling
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    graph_scales: bool

    @classmethod
    def of(
        cls, model: ImportedModel, scaling: Scaling | None, labels: tuple[str, ...] | None
    ) -> Interface:
        """Return the interface of a model.

        Parameters
        ----------
        model
            The model, imported without a scaling.
        scaling, labels
            What the caller states, or None.

        Raises
        ------
        ModelShapeError
            If what is stated is for another number of channels or classes.
        """
        if scaling is not None and scaling.channels not in (None, model.channels):
            raise ModelShapeError(
                f"mean and std are of {scaling.channels} channels, and the model takes "
                f"{model.channels}: state one number, or one for each channel"
            )
        hints = read_hints(model.metadata, model.classes, model.channels)
        warnings = list(model.warnings)
        notes = list(model.notes)
        own = InputScaling.of_graph(model)
        _expect_pixel_format(hints, model.channels, warnings)
        return cls(
            _scaling(own, scaling, hints, warnings, notes),
            _labels(model, labels, hints, warnings, notes),
            tuple(warnings),
            tuple(notes),
            graph_scales=not own.nothing,
        )


def import_model(
    source: str | os.PathLike[str],
    *,
    scaling: Scaling | None = None,
    labels: tuple[str, ...] | None = None,
    channels: int | None = None,
    output: str | None = None,
) -> tuple[ImportedModel, Interface]:
    """Import a model such that it takes raw pixels; return its interface too.

    Parameters
    ----------
    source
        The path of the file.
    scaling, labels
        What the caller states, or None: see `Interface.of`.
    channels, output
        As for `ferplus_tvm.importer.load_model`.

    Raises
    ------
    ModelError
        If the model cannot be compiled, or what is stated does not fit it.
    """
    load = partial(load_model, source, channels=channels, output=output)
    imported = load()
    interface = Interface.of(imported, scaling, labels)
    if interface.scaling != RAW:
        imported = load(scaling=interface.scaling)
    return imported, interface


def _scaling(
    own: InputScaling, stated: Scaling | None, hints: Hints, warnings: list[str], notes: list[str]
) -> Scaling:
    """Return the scaling, for a graph whose own first step is ``own``."""
    hinted = hints.scaling
    of_metadata = f"the file's metadata has {hints.scaling_from}, {hinted},"
    if hinted is not None and not own.nothing and own.is_close(InputScaling.of_scaling(hinted)):
        hinted = None  # the metadata describe what the graph does
    if stated is not None:
        stated_step = InputScaling.of_scaling(stated)
        reached = own.after(stated_step)
        twice = own.fits() and own.scales and stated_step.scales
        if twice or (own.fits() and not reached.fits()):
            warnings.append(
                f"scaled as stated ({stated}), pixels reach the first layer in {reached}: see "
                "that nothing is scaled both outside and inside of the graph, and that mean and "
                "std are of pixels in the input range"
            )
        if hinted is not None and not InputScaling.of_scaling(hinted).is_close(stated_step):
            warnings.append(f"{of_metadata} and {stated} is stated, which is taken")
        return stated
    warnings += hints.unclear_scaling
    if hinted is not None and (own.nothing or hinted == RAW or not own.fits()):
        reached = own.after(InputScaling.of_scaling(hinted))
        if not reached.fits():
            warnings.append(
                f"{of_metadata} by which pixels reach the first layer in {reached}: {_STATE_PIXELS}"
            )
        notes.append(f"{of_metadata} which is taken")
        return hinted
    if hinted is not None:
        warnings.append(
            f"{of_metadata} and the graph scales its input itself, so raw pixels 0..255 are "
            f"assumed: {_STATE_PIXELS}"
        )
    elif own.nothing:
        warnings.append(
            "the graph does not scale its input, and raw pixels 0..255 are assumed: "
            f"{_STATE_PIXELS}"
        )
    elif not own.fits():
        warnings.append(
            f"raw pixels 0..255 are assumed, which the graph itself scales to {own}, as if it "
            f"were made for pixels in another range, such as 0..1: {_STATE_PIXELS}"
        )
    return RAW


def _labels(
    model: ImportedModel,
    stated: tuple[str, ...] | None,
    hints: Hints,
    warnings: list[str],
    notes: list[str],
) -> tuple[str, ...]:
    classes = model.classes
    if stated is not None and len(stated) != classes:
        raise ModelShapeError(
            f"labels names {len(stated)} classes ({', '.join(stated)}), and the model gives "
            f"{classes} scores: name each class once, in the order of the scores"
        )
    hinted = hints.labels
    if stated is not None:
        if hinted is not None and not same_order(stated, hinted):
            warnings.append(
                f"the file's metadata has {hints.labels_from} {', '.join(hinted)}, and the labels "
                f"{', '.join(stated)} are stated, which are taken"
            )
        return stated
    warnings += hints.unclear_labels
    if hinted is not None:
        notes.append(f"the labels are those of the file's metadata ({hints.labels_from})")
        return hinted
    if classes == len(EMOTIONS):
        if hints.unclear_labels or not _is_ferplus(model):
            warnings.append(
                f"the file does not name its {classes} classes, and FER+'s are assumed "
                f"({', '.join(EMOTIONS)}): {_state_labels(classes)}"
            )
        return EMOTIONS
    warnings.append(
        f"the file does not name its {classes} classes, which are called class 0 to class "
        f"{classes - 1}: {_state_labels(classes)}"
    )
    return tuple(f"class {at}" for at in range(classes))


def _state_labels(classes: int) -> str:
    named = [name for name, labels in ORDERS.items() if len(labels) == classes]
    of_name = "".join(f" or {name}" for name in named)
    return f"state labels=[...] in the order of the scores (--labels a,b,c{of_name})"


def _is_ferplus(model: ImportedModel) -> bool:
    """Tell whether a model of eight scores is the network of FER+, of any width."""
    own = InputScaling.of_graph(model)
    scaled = own.is_close(InputScaling(np.array([127.5]), np.array([1 / 127.5])))
    operators = [node.op_type for node in model.proto.graph.node]
    return scaled and (model.channels, model.size) == (1, 64) and operators == _FERPLUS


def _expect_pixel_format(hints: Hints, channels: int, warnings: list[str]) -> None:
    """Warn of faces in another form than the library takes: grey, or RGB for three channels."""
    given = "grey" if channels == 1 else "RGB"
    if hints.pixel_format not in ("", given):
        warnings.append(
            f"the file's metadata has {hints.pixel_format_from} {hints.pixel_format}, and its "
            f"{channels} channel{'s' * (channels > 1)} will get {given} pixels: export it for "
            "them, or take that entry out if it is wrong"
        )
