"""The rules that make a graph tidy, one file each, in the order in which they are tried.

Each rule is a function ``apply(graph) -> bool``: it rewrites what it knows, leaves everything
else as it is, and says whether it changed anything.  Applied to its own result it changes
nothing, so the list can be repeated until all are silent.
"""

from __future__ import annotations

from collections.abc import Callable

from ferplus_tvm.importer.graph import Graph
from ferplus_tvm.importer.passes import (
    clip_to_relu,
    explicit_conv,
    explicit_pool,
    flatten,
    fold_batchnorm,
    fold_constants,
    matmul_to_gemm,
    merge_bias,
    plain_gemm,
    remove_dead,
    remove_identities,
    scale_input,
)

RULES: tuple[Callable[[Graph], bool], ...] = (
    fold_constants.apply,
    remove_dead.apply,
    remove_identities.apply,
    clip_to_relu.apply,
    scale_input.apply,
    flatten.apply,
    matmul_to_gemm.apply,
    merge_bias.apply,
    plain_gemm.apply,
    fold_batchnorm.apply,
    explicit_conv.apply,
    explicit_pool.apply,
)
