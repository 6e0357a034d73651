"""Model-local functions, put in place of the nodes that call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import inliner, shape_inference

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.structure import MAX_NODES, STANDARD, opset_of
from ferplus_tvm.importer.wording import describe, first_line

# What a function holds is copied into each call, so both are bounded before anything is copied.
_MAX_BYTES = 1 << 28
_MAX_DEPTH = 32
_EXPORT = "export the model without functions"
_Key = tuple[str, str, str]


def inline_functions(model: onnx.ModelProto) -> None:
    """Replace each call of a model-local function by the operators of the function, in place.

    Parameters
    ----------
    model
        A model from `read_model`.

    Raises
    ------
    UnsupportedModelError
        If a function calls itself, if functions are nested too deeply or hold too much, or if
        onnx cannot inline them.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[_Key, tuple[int, int]] = {}
    nodes, size = _total(model.graph.node, functions, sizes, ())
    if not sizes:
        return
    if nodes > MAX_NODES or size > _MAX_BYTES:
        raise UnsupportedModelError(
            f"the model has {nodes} operators of {size >> 20} MiB once its functions are put in "
            f"place, and at most {MAX_NODES} of {_MAX_BYTES >> 20} MiB are supported: {_EXPORT}"
        )
    version = opset_of(model)
    called = [onnx.FunctionProto.FromString(functions[k].SerializeToString()) for k in sizes]
    convert = not all([_adopt_opset(function, version) for function in called])
    del model.functions[:]
    model.functions.extend(called)
    try:
        # The converter wants to know the type of each value.
        typed = shape_inference.infer_shapes(model) if convert else model
        inlined = inliner.inline_local_functions(typed, convert_version=convert)
    # The inliner is C++ and raises whatever its assertions turn into.
    except Exception as error:
        raise UnsupportedModelError(
            f"onnx cannot put the model's functions in place ({first_line(error)}): {_EXPORT}"
        ) from error
    model.CopyFrom(inlined)


def _total(
    nodes: Iterable[onnx.NodeProto],
    functions: dict[_Key, onnx.FunctionProto],
    sizes: dict[_Key, tuple[int, int]],
    calls: tuple[_Key, ...],
) -> tuple[int, int]:
    """Return how many nodes, and bytes of them, ``nodes`` are once all calls are put in place.

    ``sizes`` gets the same of each function that is called; ``calls`` are those around ``nodes``.
    """
    count = size = 0
    for node in (inner for outer in nodes for inner in _with_subgraphs(outer)):
        key = (node.domain, node.op_type, node.overload)
        if key not in functions:
            count, size = count + 1, size + node.ByteSize()
            continue
        if key in calls or len(calls) == _MAX_DEPTH:
            how = "a function that calls itself" if key in calls else "nested too deeply"
            raise UnsupportedModelError(f"{describe(node)} is {how}: {_EXPORT}")
        if key not in sizes:
            sizes[key] = _total(functions[key].node, functions, sizes, (*calls, key))
        count, size = count + sizes[key][0], size + sizes[key][1]
    return count, size


def _with_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield ``node`` and all nodes of its subgraphs, which protobuf nests 100 deep at most."""
    yield node
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _with_subgraphs(inner)


def _adopt_opset(function: onnx.FunctionProto, version: int) -> bool:
    """Name the model's operator set in a function, if its operators are the same in both.

    Returns
    -------
    bool
        Whether the function is in the model's operator set now.
    """
    for entry in function.opset_import:
        if entry.domain in STANDARD and entry.version != version:
            for node in function.node:
                if node.domain in STANDARD and (
                    _since(node.op_type, entry.version) != _since(node.op_type, version)
                ):
                    return False
            entry.version = version
    return True


def _since(operator: str, version: int) -> int | None:
    """Return the operator set that defined ``operator`` as ``version`` has it, None if none did."""
    try:
        return int(onnx.defs.get_schema(operator, version).since_version)
    except (onnx.defs.SchemaError, OverflowError, TypeError):
        return None
