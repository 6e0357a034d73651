"""Whole networks beside each other, as a tuning ends: built, sent to the device, timed in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferplus_tvm import check
from ferplus_tvm.compiler import export, lower
from ferplus_tvm.errors import DeviceError, VerificationError
from ferplus_tvm.rewrite import match
from ferplus_tvm.rewrite.place import place
from ferplus_tvm.targets import ResolvedTarget
from ferplus_tvm.tuning.build import Builder
from ferplus_tvm.tuning.contest import Standing, contest
from ferplus_tvm.tuning.device import Device
from ferplus_tvm.tuning.space import Config, Layer
from ferplus_tvm.tuning.task import TOLERANCE

Choice = dict[Layer, Config]
"""What each layer of a network is computed with; those that are left out with their presets."""


@dataclass(frozen=True)
class Network:
    """A network of one batch size, built: its library, its function, and its weights' files."""

    path: Path
    function: str
    weights: dict[str, Path]


def build(
    builder: Builder,
    layers: Sequence[match.Layer],
    target: ResolvedTarget,
    batch: int,
    choices: Sequence[Choice],
    folders: Sequence[Path],
) -> list[Network]:
    """Return the network of each choice in a new folder of its own, built at the same time.

    Raises
    ------
    DeviceError
        If a process that builds one dies.
    """
    jobs = [
        builder.submit(_build, layers, target, batch, choice, folder)
        for choice, folder in zip(choices, folders, strict=True)
    ]
    try:
        return [job.result() for job in jobs]
    except (ChildProcessError, TimeoutError) as error:
        raise DeviceError(
            "a process that builds the whole network ended early: see that there is memory for "
            "it, and run the same command again, which goes on where this one ended"
        ) from error


def _build(
    layers: Sequence[match.Layer], target: ResolvedTarget, batch: int, choice: Choice, folder: Path
) -> Network:
    placed = place(layers, [batch], target.vector_unit, choice.get)
    image = export.link_image(lower.build(placed.module, target), target)
    folder.mkdir()
    path = folder / f"{folder.name}.so"
    path.write_bytes(image)
    files = {}
    for at, (name, weight) in enumerate(placed.weights.items()):
        files[name] = folder / f"weight{at}.npy"
        np.save(files[name], weight)
    arguments = placed.arguments[batch]
    return Network(path, placed.functions[batch], {name: files[name] for name in arguments})


def compare(
    device: Device, batch: int, networks: Sequence[Network], threads: Sequence[int], seconds: float
) -> list[Standing]:
    """Return how networks stand beside the first, in order.

    Raises
    ------
    DeviceError
        If the device is lost.
    VerificationError
        If their scores differ.
    """
    device.begin_networks(batch)
    scores: list[Any] = [
        device.admit_network(network.path, network.function, network.weights)
        for network in networks
    ]
    for others in scores[1:]:
        off = check.relative_error(others, scores[0])
        if not off <= TOLERANCE:
            raise VerificationError(
                f"two networks of batch {batch} differ by {off:.1e} of the largest score: expected "
                f"at most {TOLERANCE:.0e}; report this with the output of 'ferplus-tvm doctor'"
            )
    return contest(device, range(len(networks)), threads, seconds)
