"""The size of the faces: the file's own, or the one that its layers fit."""

from __future__ import annotations

from ferplus_tvm.errors import ModelError
from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.interface import Face, Interface, Layout
from ferplus_tvm.importer.reader import read_chain
from ferplus_tvm.importer.steps import Chain

# FER+ and most of its kind take 64x64 faces, those trained on FER2013 48x48.
_USUAL_SIZES = (64, 48)


def choose_and_read(graph: Graph, interface: Interface, notes: list[str]) -> Chain:
    """Return the chain of ``graph`` for the faces that it takes.

    Where the file leaves dimensions open, every size and channel count that is supported is
    tried.  If the layers fit more than one, 64x64 is taken, or else 48x48, or else the smallest,
    and a note says so.

    Raises
    ------
    ModelError
        One of its subclasses, if the layers fit none.
    """
    faces = sorted(interface.faces(), key=_preference)
    first_error: ModelError | None = None
    fits: list[tuple[Face, Layout, Chain]] = []
    for face, layout in faces:
        try:
            fits.append((face, layout, read_chain(graph, face, layout)))
        except ModelError as error:
            first_error = first_error or error
    if not fits:
        assert first_error is not None
        raise first_error
    (face, _, chain) = fits[0]
    if len(fits) > 1:
        sizes = [height for (_, height, _), *_ in fits]
        notes.append(
            f"the model leaves its input open ({interface.description}), so it is compiled for "
            f"{face[1]}x{face[2]} faces of {face[0]} channel{'s' * (face[0] > 1)}, though its "
            f"layers fit others too, from {min(sizes)} to {max(sizes)} pixels: export it with the "
            "size that it was trained for"
        )
    notes += chain.notes
    return chain


def _preference(candidate: tuple[Face, Layout]) -> tuple[int, int, int]:
    """Order faces by how usual they are."""
    (channels, size, _), _ = candidate
    usual = _USUAL_SIZES.index(size) if size in _USUAL_SIZES else len(_USUAL_SIZES)
    return usual, size, channels
