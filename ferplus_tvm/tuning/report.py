"""What a tuning log tells of each layer: what was tried, what is kept, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferplus_tvm.errors import MissingExtraError
from ferplus_tvm.records.log import Trial, TuningLog
from ferplus_tvm.tuning.search import mean
from ferplus_tvm.tuning.space import Config


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    preset, kept
        configurations; None where the layer was not finished.
    times
        of every configuration that ran, over the preset's, in the order in which they were tried:
        the geometric mean over the numbers of threads, below 1 where it is faster.
    kept_time
        the one of the configuration that is kept.
    failed
        how many did not run, or gave a wrong answer.
    """

    kernel: str
    preset: Config | None
    kept: Config | None
    times: tuple[float, ...]
    kept_time: float
    failed: int


def report(log: TuningLog) -> list[LayerReport]:
    """Return what was found, layer by layer."""
    trials = log.trials()
    by_layer: dict[int, list[Trial]] = {}
    for trial in trials:
        by_layer.setdefault(trial.workload, []).append(trial)
    reports = []
    for layer in log.layers:
        tried = by_layer.get(layer.workload, [])
        preset = None if layer.preset is None else trials[layer.preset]
        kept = None if layer.kept is None else trials[layer.kept]
        base = preset.seconds if preset is not None else None
        ran = [trial.seconds for trial in tried if trial.seconds is not None]
        reports.append(
            LayerReport(
                layer.kernel,
                preset.config if preset is not None else None,
                kept.config if kept is not None else None,
                tuple(_over(seconds, base) for seconds in ran) if base is not None else (),
                _over(kept.seconds, base) if kept is not None else 1.0,
                sum(trial.seconds is None for trial in tried),
            )
        )
    return reports


def _over(seconds: tuple[float, ...] | None, base: tuple[float, ...] | None) -> float:
    assert seconds is not None and base is not None
    return mean(seconds) / mean(base)


def tiling(config: Config | None, beside: Config | None = None) -> str:
    """Return a configuration in words; beside another, what differs."""
    if config is None:
        return "-"
    if config == beside:
        return "the preset"
    words = []
    if "tile" in config and (beside is None or config["tile"] != beside.get("tile")):
        plain = "direct" if "lanes" in config else "product"  # a CPU's, or a GPU's
        words.append(f"F({config['tile']},3)" if config["tile"] else plain)
    words += [
        f"{name}={value}"
        for name, value in config.items()
        if name not in ("tile", "lanes") and (beside is None or beside.get(name) != value)
    ]
    return " ".join(words)


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
