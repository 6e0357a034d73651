"""The geometry of convolution and pooling windows, as the ONNX specification defines it."""

from __future__ import annotations

from dataclasses import dataclass

from ferplus_tvm.errors import UnsupportedModelError
from ferplus_tvm.importer.graph import Node

_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Window:
    """A two-dimensional window with nothing left to default.

    Attributes
    ----------
    kernel, strides, dilations
        (height, width) in pixels.
    pads
        (top, left, bottom, right) in pixels.
    output
        (height, width) of the result, or None if the window is larger than the padded input.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    output: tuple[int, int] | None

    @property
    def reach(self) -> tuple[int, int]:
        """(height, width) from the first to the last pixel that a window reads."""
        high, wide = (d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))
        return high, wide

    @property
    def touches(self) -> bool:
        """Whether no window can lie in the border alone."""
        return all(n < most for n, most in zip(self.pads, self.reach * 2, strict=True))

    def attributes(self) -> dict[str, list[int]]:
        """Return the window as the attributes of Conv and MaxPool."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": list(self.pads),
            "dilations": list(self.dilations),
        }


def window_of(node: Node, kernel: tuple[int, int], size: tuple[int, int]) -> Window:
    """Work out the window of a Conv or MaxPool node.

    Parameters
    ----------
    node
        The node, with any of the attributes strides, dilations, pads, auto_pad, ceil_mode.
    kernel
        (height, width) of the kernel.
    size
        (height, width) of the input, which auto_pad depends on.

    Raises
    ------
    UnsupportedModelError
        If an attribute is not one for two dimensions, or out of its range.
    """
    strides = _pair(node, "strides", 1)
    dilations = _pair(node, "dilations", 1)
    if min(kernel) < 1:
        raise UnsupportedModelError(
            f"{node} has a kernel of {kernel[0]}x{kernel[1]}, and both must be positive: export "
            "the model again"
        )
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    auto_pad = node.attributes.get("auto_pad", "NOTSET")
    if auto_pad not in _AUTO_PADS:
        raise UnsupportedModelError(
            f"{node} has auto_pad={auto_pad!r}, and only {', '.join(_AUTO_PADS)} are defined: "
            "export the model with explicit pads"
        )
    if auto_pad == "NOTSET":
        before, after = _explicit_pads(node)
    elif auto_pad == "VALID":
        before, after = [0, 0], [0, 0]
    else:
        # Output ceil(size / stride), and an odd pixel at the end (UPPER) or the start (LOWER).
        total = [
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, s, r in zip(size, strides, reach, strict=True)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    room = [n + b + a - r for n, b, a, r in zip(size, before, after, reach, strict=True)]
    up = bool(node.attributes.get("ceil_mode", 0))
    output = [
        (-(-left // s) if up else left // s) + 1 for left, s in zip(room, strides, strict=True)
    ]
    return Window(
        kernel,
        strides,
        dilations,
        (before[0], before[1], after[0], after[1]),
        (output[0], output[1]) if min(room) >= 0 else None,
    )


def _pair(node: Node, name: str, default: int) -> tuple[int, int]:
    """Return an attribute of two positive numbers."""
    values = node.attributes.get(name, [default, default])
    if len(values) != 2 or min(values) < 1:
        raise UnsupportedModelError(
            f"{node} has {name}={values}, and two positive numbers are expected: export the model "
            "with two-dimensional layers"
        )
    return int(values[0]), int(values[1])


def _explicit_pads(node: Node) -> tuple[list[int], list[int]]:
    """Return the pads before (top, left) and after (bottom, right)."""
    pads = [int(pad) for pad in node.attributes.get("pads", [0, 0, 0, 0])]
    if len(pads) != 4 or min(pads) < 0:
        raise UnsupportedModelError(
            f"{node} has pads={pads}, and four numbers, none negative, are expected: export the "
            "model with two-dimensional layers"
        )
    return pads[:2], pads[2:]
