"""Which of a model's outputs holds the scores."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from ferplus_tvm.errors import ModelShapeError

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def choose_output(model: onnx.ModelProto, name: str | None) -> None:
    """Leave one output to ``model``: the one of this name, or the only one.

    Raises
    ------
    ModelShapeError
        If no output has this name; or if no name is given and there is not exactly one output.
    """
    outputs = model.graph.output
    names = ", ".join(repr(value.name) for value in outputs) or "none"
    if name is None and len(outputs) != 1:
        advice = "export the network's scores as its output"
        if outputs:
            fitting = [value.name for value in outputs if _may_be_scores(value)]
            example = fitting[0] if len(fitting) == 1 else "NAME"
            only = " (the only one that can be scores)" if len(fitting) == 1 else ""
            advice = (
                f"choose the scores with `--model-output {example}`, in Python "
                f"model_output={example!r}{only}"
            )
        raise ModelShapeError(f"the model has {len(outputs)} outputs ({names}): {advice}")
    chosen = [value for value in outputs if name is None or value.name == name]
    if not chosen:
        raise ModelShapeError(f"the model has no output {name!r}: choose one of {names}")
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(chosen[0])
    del outputs[:]
    outputs.append(copy)


def _may_be_scores(value: onnx.ValueInfoProto) -> bool:
    """Tell whether an output may be one row of scores per face, by what the file declares."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _FLOATS:
        return False
    if not tensor.HasField("shape"):
        return True
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    # A fixed batch of one may be squeezed away, and (N, K, 1, 1) are scores too.
    wide = [size for size in sizes if size > 1]
    return bool(sizes) and len(wide) <= 2 and (not wide or wide[-1] <= 64)
