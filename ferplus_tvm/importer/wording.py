"""How messages name a node of a model, and what they quote of a library's error."""

from __future__ import annotations

import onnx


def describe(node: onnx.NodeProto) -> str:
    """Return the operator and the node's name, or its output where it has no name."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.name:
        return f"{operator} node {node.name!r}"
    return f"{operator} node with output {next(iter(node.output), '')!r}"


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, without its final stop."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
