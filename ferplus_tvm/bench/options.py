"""What a benchmark measures, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_BATCH_SIZES = (1, 8, 32)
"""Those that are measured where the model is compiled for it."""


@dataclass(frozen=True)
class BenchOptions:
    """What a benchmark measures, and for how long.

    Attributes
    ----------
    peers
        Names of `ferplus_tvm.bench.engines.catalog.peers`, or paths of other libraries.  By default
        onnxruntime on a CPU, and on a GPU all that work there.
    batch_sizes
        The batch sizes to measure; by default the library's.
    threads
        The numbers of threads; by default one, and what this process may use.  A GPU has none.
    seconds
        For each batch size, shared by the numbers of threads; warming up is part of it.
    device
        ``cpu``, or a GPU such as ``cuda:0``; by default what the library is for.
    end_to_end
        Also measure from a JPEG's bytes to the label.
    cold_start
        Also measure from the start of a process to its first answer.
    by_layer
        Also measure each kernel, and this machine's roofline.
    mlperf
        Also run MLPerf's scenarios, in this form.
    model_output
        The model's output that holds the scores, for one of several that is compiled first.

    Raises
    ------
    ValueError
        If a number is not positive.
    """

    peers: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    threads: tuple[int, ...] | None = None
    seconds: float = 20.0
    device: str | None = None
    end_to_end: bool = False
    cold_start: bool = False
    by_layer: bool = False
    mlperf: Literal["short", "full"] | None = None
    model_output: str | None = None

    def __post_init__(self) -> None:
        """See that the numbers are positive."""
        for name in ("batch_sizes", "threads"):
            numbers = getattr(self, name)
            if numbers is not None and min(numbers, default=0) < 1:
                raise ValueError(f"{name} is {numbers}: expected one or more positive numbers")
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}: expected a positive number")
