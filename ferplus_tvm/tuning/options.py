"""What a tuning is asked for, worked out before the work starts."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.compiler.options import batch_sizes_of, with_precision
from ferplus_tvm.errors import MissingExtraError, TargetError
from ferplus_tvm.host import cpu, gpu
from ferplus_tvm.targets import Precision, ResolvedTarget, resolve
from ferplus_tvm.toolchain.available import require_tools
from ferplus_tvm.tuning.address import Address

LEAST_SECONDS = 10
"""The shortest time of a tuning."""


@dataclass(frozen=True)
class TuneOptions:
    """The options of one tuning, resolved.

    Attributes
    ----------
    batch_sizes
        Increasing, without repetition.
    threads
        How many threads the measurements use beside one, or None for what keeps the device busy.
    address
        The devices behind an RPC tracker, or None for this machine.
    scaling
        How the model's file wants its pixels, or None where it is not stated.
    model_output
        The output of the model that holds the scores, or None if it has only one.
    """

    model: str | os.PathLike[str]
    target: ResolvedTarget
    batch_sizes: tuple[int, ...]
    time_limit: float
    threads: int | None
    address: Address | None
    scaling: Scaling | None
    model_output: str | None

    @classmethod
    def of(
        cls,
        model: str | os.PathLike[str],
        target: str,
        *,
        batch_sizes: Iterable[int],
        time_limit: float,
        precision: Precision,
        threads: int | None,
        rpc: str | None,
        input_range: Iterable[float] | None = None,
        mean: float | Iterable[float] | None = None,
        std: float | Iterable[float] | None = None,
        model_output: str | None = None,
    ) -> TuneOptions:
        """Work the options out, and see that the tools for them are there.

        Raises
        ------
        MissingExtraError, TargetError, DeviceError, LinkerError, CudaCompilerError, ValueError
            As for `ferplus_tvm.tune`.
        """
        _expect_packages()
        sizes = batch_sizes_of(batch_sizes)
        if not LEAST_SECONDS <= time_limit < math.inf:
            raise ValueError(f"time_limit is {time_limit} s: expected {LEAST_SECONDS} or more")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: expected 1 or more, or None for the default")
        scaling = Scaling.of(input_range, mean, std)
        address = None if rpc is None else Address.parse(rpc)
        resolved = _resolve(target, address, precision)
        if address is not None:
            address.expect_tracker()
        require_tools(resolved)
        return cls(model, resolved, sizes, time_limit, threads, address, scaling, model_output)

    @property
    def machine(self) -> str:
        """The name of what is measured on."""
        if self.address is not None:
            return f"devices with the key {self.address.key!r}"
        if self.target.gpu is not None:
            return gpu.devices()[0].name
        return cpu.name()

    @property
    def command(self) -> str:
        """The command line of this tuning, without paths and hosts."""
        target, address = self.target, self.address
        parts = ["ferplus-tvm tune", os.path.basename(self.model), "--target", target.name]
        parts += ["--batch", ",".join(map(str, self.batch_sizes))]
        parts += ["--time", f"{self.time_limit:g}"]
        parts += [] if target.precision == "float32" else ["--precision", target.precision]
        parts += [] if self.threads is None else ["--threads", str(self.threads)]
        for name, numbers in asdict(self.scaling).items() if self.scaling else ():
            parts += [f"--{name.replace('_', '-')}", ",".join(f"{each:g}" for each in numbers)]
        parts += [] if self.model_output is None else ["--model-output", self.model_output]
        parts += [] if address is None else ["--rpc", f"TRACKER:{address.port}/{address.key}"]
        return " ".join(parts)


def _expect_packages() -> None:
    for package in ("tvm", "cloudpickle", "psutil", "tornado"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(f"tuning (no module {package})", "tune")


def _resolve(target: str, address: Address | None, precision: Precision) -> ResolvedTarget:
    resolved = with_precision(resolve(target), precision)
    if resolved.name == "custom":
        raise TargetError(
            "a tuning log has the name of its target, and TVM's JSON has none: give native or a "
            "name that 'ferplus-tvm targets' lists"
        )
    if address is not None and target in ("native", "cuda"):
        raise TargetError(
            f"the target {target} is this machine, but --rpc measures on others: give the name of "
            "their CPU or GPU that 'ferplus-tvm targets' lists"
        )
    if address is None and not resolved.runs_here:
        raise TargetError(
            f"this machine cannot run what is compiled for {target}: tune on one that can, or give "
            "its address with --rpc"
        )
    return resolved
