"""The size of the faces: the file's own, or the one that its layers fit."""

from __future__ import annotations

from ferplus_tvm.errors import ModelError, ModelShapeError
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import Face, Interface, Layout
from ferplus_tvm.importer.reader import read_chain, start
from ferplus_tvm.importer.steps import Chain

_DEFAULT_SIZE = 64


def choose_and_read(
    graph: Graph, interface: Interface, notes: list[str], warnings: list[str]
) -> Chain:
    """Return the chain of ``graph`` for the faces that it takes.

    Where the file leaves dimensions open, every size and channel count that is supported is
    tried.  If the layers fit more than one size, 64x64 is taken, or else the one that can be
    halved most often, and a warning says so.

    Raises
    ------
    ModelError
        One of its subclasses, if the layers fit none.
    """
    faces = sorted(interface.faces(), key=_preference)
    failures: list[tuple[int, ModelError]] = []
    fits: list[tuple[Face, Layout, Chain]] = []
    for face, layout in faces:
        state = start(graph, face, layout)
        try:
            fits.append((face, layout, read_chain(state)))
        except ModelError as error:
            failures.append((len(state.shapes), error))
    if not fits:
        # What no face helps against is said where the reader comes farthest.
        raise max(failures, key=lambda failure: failure[0])[1]
    # Where the number of channels is open, numbers for three channels say that it is three.
    fits = [fit for fit in fits if not fit[2].broadcasts] or fits
    face, _, chain = fits[0]
    _check_layout([(f, layout) for f, layout, _ in fits if f[1] == face[1]], interface)
    if len({f for f, *_ in fits}) > 1:
        sizes = [height for (_, height, _), *_ in fits]
        warnings.append(
            f"the model leaves its input open ({interface.description}), so it is compiled for "
            f"{face[1]}x{face[2]} faces of {face[0]} channel{'s' * (face[0] > 1)}, though its "
            f"layers fit others too, from {min(sizes)} to {max(sizes)} pixels: export it with the "
            "size that it was trained for"
        )
    notes += chain.notes
    return chain


def _check_layout(fits: list[tuple[Face, Layout]], interface: Interface) -> None:
    """Refuse an input whose channels, or whose order of them, nothing tells."""
    kinds = {(face[0], layout) for face, layout in fits}
    # One channel lies the same way in every layout.
    if len(kinds) > 1 and {channels for channels, _ in kinds} != {1}:
        found = " and ".join(
            sorted(
                f"{channels} channel{'s' * (channels > 1)} as {layout.value}"
                for channels, layout in kinds
            )
        )
        raise ModelShapeError(
            f"the model leaves its input open ({interface.description}), and its layers fit "
            f"{found}: state the number of channels, or export the model with a fixed input"
        )


def _preference(candidate: tuple[Face, Layout]) -> tuple[bool, int, int, int]:
    """Order faces by how usual they are: poolings and strides halve a size without a rest."""
    (channels, size, _), _ = candidate
    return size != _DEFAULT_SIZE, -(size & -size), size, channels
