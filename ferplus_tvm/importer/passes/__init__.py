"""The rules that make a network tidy, one file each, in the order in which they are tried.

Rules on the graph come before it is read: they compute what is constant, and drop what is dead.
Rules on the chain of steps come after: they fold steps into layers.  Each is a function
``apply(graph)`` or ``apply(chain)`` that rewrites what it knows, leaves everything else as it
is, and says whether it changed anything.  Applied to its own result it changes nothing, so the
list can be repeated until all are silent.  Only then `own_layers` has its turn.
"""

from __future__ import annotations

from collections.abc import Callable

from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.passes import (
    end_in_dense,
    fold_affine,
    fold_constants,
    fold_pads,
    join_activations,
    merge_dense,
    merge_steps,
    place_activations,
    pool_before_conv,
    remove_dead,
    shape_of_cast,
    split_slopes,
)
from ferplus_tvm.importer.steps import Chain

GRAPH_RULES: tuple[Callable[[Graph], bool], ...] = (
    fold_constants.apply,
    shape_of_cast.apply,
    remove_dead.apply,
    join_activations.apply,
)
CHAIN_RULES: tuple[Callable[[Chain], bool], ...] = (
    merge_steps.apply,
    pool_before_conv.apply,
    place_activations.apply,
    split_slopes.apply,
    fold_pads.apply,
    fold_affine.apply,
    end_in_dense.apply,
    merge_dense.apply,
)
