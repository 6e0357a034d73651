"""What a tuning log tells of each layer: what was tried, what is kept, and by how much."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import MissingExtraError
from ferplus_tvm.records.codec import Record, canonical
from ferplus_tvm.records.log import Measured, TuningLog
from ferplus_tvm.tuning.search import mean
from ferplus_tvm.tuning.trials import read_trials


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes
    ----------
    preset, kept
        Configurations; None where the layer was not finished.
    times
        Of every configuration that ran, over the preset's, in the order in which they were tried:
        the geometric mean over the numbers of threads, below 1 where it is faster.  Where the
        history is not at hand, as of the logs that the package carries, of those that are kept.
    kept_time
        The one of the configuration that is kept.
    tried, failed
        How many configurations were tried, and how many of them did not run or were wrong.
    """

    kernel: str
    preset: Record | None
    kept: Record | None
    times: tuple[float, ...]
    kept_time: float
    tried: int
    failed: int


def report(log: TuningLog) -> list[LayerReport]:
    """Return what was found, layer by layer."""
    history = _history(log.folder)
    reports = []
    for layer in log.layers:
        preset, kept = layer.preset, layer.kept
        known = [each for each in (preset, layer.leader, kept) if each is not None]
        seconds = history.get(canonical(layer.workload)) or [
            each.seconds for at, each in enumerate(known) if each not in known[:at]
        ]
        reports.append(
            LayerReport(
                layer.workload.name,
                None if preset is None else preset.config,
                None if kept is None else kept.config,
                () if preset is None else tuple(_over(each, preset) for each in seconds),
                1.0 if kept is None or preset is None else _over(kept.seconds, preset),
                layer.tried,
                layer.failed,
            )
        )
    return reports


def _history(folder: Path) -> dict[str, list[tuple[float, ...]]]:
    """Return the seconds of all that ran, by workload; nothing where they are not at hand."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for trial in read_trials(folder):
        if trial["seconds"] is not None:
            key = json.dumps(trial["workload"], sort_keys=True)
            found.setdefault(key, []).append(tuple(trial["seconds"]))
    return found


def _over(seconds: tuple[float, ...], base: Measured) -> float:
    return mean(seconds) / mean(base.seconds)


def tiling(config: Record | None, beside: Record | None = None) -> str:
    """Return a configuration in words; beside another, what differs."""
    if config is None:
        return "-"
    if config == beside:
        return "the preset"
    differing = {
        name: value
        for name, value in config.items()
        if name not in ("tile", "lanes") and (beside is None or beside.get(name) != value)
    }
    return " ".join(
        str(value) if name == "algorithm" else f"{name}={value}"
        for name, value in differing.items()
    )


def plot(layers: Sequence[LayerReport], target: str, path: Path) -> None:
    """Draw every configuration's time over its layer's preset, as a PNG.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError.of("the plot (no module matplotlib)", "tune") from None
    reports = [each for each in layers if each.times]
    figure: Any = Figure(figsize=(9, 1.2 + 0.3 * len(reports)), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(reversed(reports)):
        axes.plot(each.times, [row] * len(each.times), "|", color="tab:blue", markersize=10)
        axes.plot([each.kept_time], [row], "o", color="tab:orange", markersize=5)
    axes.plot([], [], "|", color="tab:blue", label="tried")
    axes.plot([], [], "o", color="tab:orange", label="kept")
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(reports)), [each.kernel for each in reversed(reports)], fontsize=7)
    axes.set_xscale("log")
    marks = [0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5, 10]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.set_xlim(0.6, 4)
    axes.set_ylim(-0.8, len(reports) - 0.2)
    axes.set_xlabel("time over the preset's, of each layer on its own (beyond 4 not drawn)")
    axes.set_title(f"what was tried for {target}", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120, format="png")
