"""Whole networks beside each other, as a tuning ends: built, sent to the device, timed in turns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferplus_tvm.artifact import reference_inputs
from ferplus_tvm.compiler import build, export
from ferplus_tvm.errors import VerificationError
from ferplus_tvm.kernels import backend_of
from ferplus_tvm.kernels.backend import Config
from ferplus_tvm.kernels.workloads import Workload
from ferplus_tvm.lowering.layers import LayeredModel
from ferplus_tvm.lowering.writer import lower
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.tuning.builder import Builder
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.paired_timing import PairedResult, time_pairs

Choice = dict[Workload, Config]
"""What each layer of a network is computed with; those that are left out with their presets."""


@dataclass(frozen=True)
class Network:
    """A network of one batch size, built.

    Attributes
    ----------
    path
        Its library.
    function
        Its function.
    faces
        The shape of the faces that the function takes.
    weights
        The files of the weights that it takes after them, by name.
    """

    path: Path
    function: str
    faces: tuple[int, ...]
    weights: dict[str, Path]


def build_networks(
    builder: Builder,
    layers: LayeredModel,
    target: ResolvedTarget,
    batch: int,
    choices: Sequence[Choice],
    paths: Sequence[Path],
) -> list[Network]:
    """Return the network of each choice, its library at a path, built at the same time.

    Their weights lie beside the libraries, once for all that have the same layout of them.

    Raises
    ------
    CompileError
        If one cannot be built.
    """
    jobs = [
        (layers, target, batch, choice, path) for choice, path in zip(choices, paths, strict=True)
    ]
    networks: list[Network] = builder.call(_build, jobs)
    return networks


def _build(
    layers: LayeredModel, target: ResolvedTarget, batch: int, choice: Choice, path: Path
) -> Network:
    lowered = lower(layers, [batch], backend_of(target), choice.get)
    image = export.link_image(build.executable(lowered.module, target), target)
    path.write_bytes(image)
    files = {}
    for name in lowered.arguments[batch]:
        files[name] = path.with_name(f"{hashlib.sha256(name.encode()).hexdigest()}.npy")
        if not files[name].exists():
            unfinished = path.with_suffix(".npy")  # another process may write the same weights
            np.save(unfinished, lowered.weights[name])
            unfinished.replace(files[name])
    function = lowered.functions[batch]
    faces = lowered.module[function].params[0].ty.shape
    return Network(path, function, tuple(int(size) for size in faces), files)


def compare(
    device: Device,
    batch: int,
    networks: Sequence[Network],
    threads: Sequence[int],
    seconds: float,
    tolerance: float,
) -> list[PairedResult]:
    """Return how networks stand beside the first, in order.

    ``tolerance`` is how far their scores may differ, relative to the largest.

    Raises
    ------
    DeviceError
        If the device is lost.
    VerificationError
        If their scores differ.
    """
    device.begin_networks(networks[0].faces)
    scores: list[Any] = [
        device.admit_network(network.path, network.function, network.weights)
        for network in networks
    ]
    for others in scores[1:]:
        off = reference_inputs.relative_error(others, scores[0])
        if not off <= tolerance:
            raise VerificationError(
                f"two networks of batch {batch} differ by {off:.1e} of the largest score: expected "
                f"at most {tolerance:.0e}; report this with the output of 'ferplus-tvm doctor'"
            )
    return time_pairs(device, range(len(networks)), threads, seconds)
