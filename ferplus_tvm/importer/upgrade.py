"""A model of any operator set to one of operator set `OPSET`.

Opsets 1 to 6 go through our own rules (legacy.py) first; then onnx's version converter does the
rest, upwards or downwards.  Newer IR versions only add what `check_structure` refuses or drops.
"""

from __future__ import annotations

import onnx
from onnx import checker, helper, version_converter

from ferplus_tvm.errors import ModelFileError, UnsupportedModelError
from ferplus_tvm.importer.legacy import LEGACY_TARGET, upgrade_legacy
from ferplus_tvm.importer.structure import opset_of
from ferplus_tvm.importer.wording import describe, first_line

# The rules under passes/ are written for this operator set.  IR 8 is the version of its time.
OPSET = 17
IR_VERSION = 8
# Operators that onnx's converter has no way back for, though newer operator sets only gave them
# more types, an optional attribute, and Pad and Resize axes that the reader knows.
_SAME = {"ConstantOfShape", "GlobalMaxPool", "Pad", "Resize", "Split"}
_LEFT_OUT = "ferplus_tvm.left_out"


def upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` in operator set `OPSET`, valid by onnx's own checker.

    Parameters
    ----------
    model
        A model after `check_structure` and `free_interface`; it may be changed.

    Raises
    ------
    ModelFileError
        If the checker refuses the model.
    UnsupportedModelError
        If its operator set is too new, or if an operator has no counterpart in `OPSET`.
    """
    opset = opset_of(model)
    _refuse_what_the_converter_drops(model, opset)
    model.ir_version = IR_VERSION
    _set_opset(model, opset)
    _check(model)
    if opset < LEGACY_TARGET:
        upgrade_legacy(model)
        _set_opset(model, LEGACY_TARGET)
        _check(model)
    if opset == OPSET:
        return model
    # The converter passes over operators of other domains.
    left_out = [node for node in model.graph.node if opset > OPSET and _is_left_out(node)]
    for node in left_out:
        node.domain = _LEFT_OUT
    if left_out:
        model.opset_import.append(helper.make_opsetid(_LEFT_OUT, 1))
    try:
        converted: onnx.ModelProto = version_converter.convert_version(model, OPSET)
    # The converter is C++ and raises whatever its assertions turn into.
    except Exception as error:
        raise UnsupportedModelError(
            f"onnx cannot convert the model from opset {opset} to {OPSET} "
            f"({first_line(error)}): export it with opset {OPSET}"
        ) from error
    for node in converted.graph.node:
        if node.domain == _LEFT_OUT:
            node.domain = ""
            _drop_number_of_outputs(node)
    _set_opset(converted, OPSET)
    return converted


def _is_left_out(node: onnx.NodeProto) -> bool:
    """Tell whether the converter, going back to `OPSET`, had better not see a node.

    The reader names what that operator set does not have at all.
    """
    try:
        onnx.defs.get_schema(node.op_type, OPSET)
    except onnx.defs.SchemaError:
        return True
    return node.op_type in _SAME


def _drop_number_of_outputs(node: onnx.NodeProto) -> None:
    """Take num_outputs off a Split: before opset 18 it has as many equal parts as outputs."""
    for index in reversed(range(len(node.attribute))):
        if node.op_type == "Split" and node.attribute[index].name == "num_outputs":
            del node.attribute[index]


def _refuse_what_the_converter_drops(model: onnx.ModelProto, opset: int) -> None:
    """Refuse spatial=0 of opset 8 and older, which later opsets cannot say."""
    for node in model.graph.node:
        if opset < 9 and node.op_type == "BatchNormalization":
            spatial = [a.i for a in node.attribute if a.name == "spatial"]
            if spatial not in ([], [1]):
                raise UnsupportedModelError(
                    f"{describe(node)} has spatial=0, which is not supported: export the model "
                    "with one scale and shift per channel"
                )


def _check(model: onnx.ModelProto) -> None:
    """Let onnx check operators, the number of their inputs, and the types of attributes."""
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ModelFileError(
            f"the model is not valid ONNX ({first_line(error)}): fetch or export it again"
        ) from error


def _set_opset(model: onnx.ModelProto, version: int) -> None:
    """Declare ``version`` as the only operator set; other domains are unused by now."""
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", version))
