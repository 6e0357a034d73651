"""What each kernel computes, as unscheduled TensorIR: the identity of a layer in a tuning log.

It says nothing of algorithm, layout or tiling, so that every way to compute a layer is recorded
under the same key.
"""

from __future__ import annotations

from typing import Any

from ferplus_tvm.kernels.workloads import Conv, Dense


def of(w: Conv | Dense) -> Any:
    """Return the specification of a layer."""
    return conv(w) if isinstance(w, Conv) else dense_layer(w)


def conv(w: Conv) -> Any:
    """Return x (N,H,W,CI), weight (CO,CI,KH,KW), bias (CO) -> y (N,OH,OW,CO), pooled if asked."""
    from tvm import te, tirx

    zero = tirx.const(0.0, "float32")
    top, left, bottom, right = w.padding
    x = te.placeholder((w.batch, w.height, w.width, w.in_channels), "float32", "x")
    weight = te.placeholder((w.out_channels, w.in_channels, *w.kernel), "float32", "weight")
    bias = te.placeholder((w.out_channels,), "float32", "bias")

    def padded(n: Any, row: Any, column: Any, c: Any) -> Any:
        inside = tirx.all(row >= top, row < w.height + top, column >= left, column < w.width + left)
        taken = x[n, row - top, column - left, c]
        if w.affine is not None:
            shift, scale = (tirx.const(number, "float32") for number in w.affine)
            taken = (taken - shift) * scale
        return tirx.if_then_else(inside, taken, zero)

    shape = (w.batch, w.height + top + bottom, w.width + left + right, w.in_channels)
    pad = te.compute(shape, padded, name="pad")
    ky, kx, ci = (
        te.reduce_axis((0, extent), name)
        for extent, name in zip((*w.kernel, w.in_channels), ("ky", "kx", "ci"), strict=True)
    )

    def products(n: Any, oy: Any, ox: Any, o: Any) -> Any:
        row = oy * w.stride[0] + ky * w.dilation[0]
        column = ox * w.stride[1] + kx * w.dilation[1]
        return te.sum(pad[n, row, column, ci] * weight[o, ci, ky, kx], axis=[ky, kx, ci])

    y = te.compute((w.batch, w.out_height, w.out_width, w.out_channels), products, name="conv")
    out = te.compute(y.shape, lambda *at: _finish(w, y[at] + bias[at[-1]]), name="out")
    if not w.pool:
        return te.create_prim_func([x, weight, bias, out])
    py, px = te.reduce_axis((0, 2), "py"), te.reduce_axis((0, 2), "px")
    pooled = te.compute(
        (w.batch, w.out_height // 2, w.out_width // 2, w.out_channels),
        lambda n, oy, ox, o: te.max(out[n, oy * 2 + py, ox * 2 + px, o], axis=[py, px]),
        name="pooled",
    )
    return te.create_prim_func([x, weight, bias, pooled])


def dense_layer(w: Dense) -> Any:
    """Return x (N,K), weight (K,O), bias (O) -> y (N, outputs)."""
    from tvm import te

    x = te.placeholder((w.batch, w.in_features), "float32", "x")
    weight = te.placeholder((w.in_features, w.out_features), w.weight_type, "weight")
    bias = te.placeholder((w.out_features,), "float32", "bias")
    k = te.reduce_axis((0, w.in_features), "k")
    y = te.compute(
        (w.batch, w.outputs),
        lambda n, o: te.sum(x[n, k] * weight[k, o].astype("float32"), axis=k),
        name="dense",
    )
    out = te.compute(y.shape, lambda *at: _finish(w, y[at] + bias[at[-1]]), name="out")
    return te.create_prim_func([x, weight, bias, out])


def _finish(w: Conv | Dense, total: Any) -> Any:
    from tvm import te, tirx

    return te.max(total, tirx.const(0.0, "float32")) if w.relu else total
