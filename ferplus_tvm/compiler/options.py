"""What can be asked of the compiler, resolved before the work starts."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.compiler.detector import Size, sizes_of
from ferplus_tvm.errors import CompileError, TargetError
from ferplus_tvm.host import cpu, runtime_library
from ferplus_tvm.importer.labels import labels_of
from ferplus_tvm.records.find import search_path
from ferplus_tvm.targets import Precision, ResolvedTarget, resolve

LARGEST_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """The resolved options of one compilation.

    Attributes
    ----------
    model
        A name of the zoo, or the path of an ONNX file.
    targets
        One or several targets, of one architecture and system, and one precision.
    output
        The absolute path of the library.
    batch_sizes
        Increasing, without repetition, each in 1..4096.
    tuning_logs
        The folders to look records up in, in order.
    require_tuned
        Whether every kernel that can be tuned has to have a record.
    with_runtime
        Whether to put a copy of ``libtvm_runtime`` beside the library.
    dump
        The folder to write what the compiler saw after each phase into, or None.
    scaling
        How the model's file wants its pixels, or None where it is not stated.
    channels
        1 or 3, or None.
    labels
        The names of the classes in the order of the scores, or None where they are not stated.
    strict
        Whether a warning is an error.
    model_output
        The output of the model that holds the scores, or None if it has only one.
    detector
        The picture sizes, (height, width), that a face detector is put in for; empty for none.
    """

    model: str | os.PathLike[str]
    targets: tuple[ResolvedTarget, ...]
    output: Path
    batch_sizes: tuple[int, ...]
    tuning_logs: tuple[Path, ...]
    require_tuned: bool
    with_runtime: bool
    dump: Path | None
    scaling: Scaling | None
    channels: int | None
    labels: tuple[str, ...] | None
    strict: bool
    model_output: str | None
    detector: tuple[Size, ...]

    @classmethod
    def of(
        cls,
        *,
        model: str | os.PathLike[str],
        target: str | dict[str, Any],
        output: str | os.PathLike[str],
        batch_sizes: Iterable[int],
        precision: Precision = "float32",
        tuning_logs: str | os.PathLike[str] | None = None,
        require_tuned: bool = False,
        with_runtime: bool = False,
        dump: str | os.PathLike[str] | None = None,
        input_range: Iterable[float] | None = None,
        mean: float | Iterable[float] | None = None,
        std: float | Iterable[float] | None = None,
        channels: int | None = None,
        labels: str | Iterable[str] | None = None,
        strict: bool = False,
        model_output: str | None = None,
        detector: bool | Iterable[Size] = False,
    ) -> CompileOptions:
        """Resolve what was asked for; parameters as for `ferplus_tvm.compile`.

        Raises
        ------
        ValueError
            For batch sizes that are none, or out of 1..4096, an unknown precision, channels other
            than 1 or 3, a scaling or labels that cannot be or may mean two things, or sizes of a
            detector that cannot be.
        TypeError
            For batch sizes or sizes of a detector that are not whole numbers, a scaling of no
            numbers, or labels of no text.
        TargetError
            For a target that does not exist, several of different architectures or systems, a
            precision that a target does not have, or a detector where there are only GPUs.
        TuningLogError
            If there is no such folder of tuning logs.
        CompileError
            If the output's folder is missing, or what stands in its place is not for replacing: a
            folder, a device, the model itself, the runtime library; or if the dump is not a folder
            and cannot become one.
        """
        sizes = batch_sizes_of(batch_sizes)
        path = Path(os.path.abspath(output))
        wrong = _wrong_output(path, model)
        if wrong:
            raise CompileError(
                f"the output {path} {wrong}: expected a file name such as ferplus.so"
            )
        if channels not in (None, 1, 3):
            raise ValueError(f"channels is {channels!r}: expected 1 for grey faces or 3 for RGB")
        folder = None if dump is None else Path(os.path.abspath(dump))
        wrong = None if folder is None else _wrong_dump(folder, path)
        if wrong:
            raise CompileError(
                f"the dump {folder} {wrong}: expected a folder, or the name of a new one"
            )
        targets = targets_of(target, precision)
        faces = sizes_of(detector)
        if faces and all(each.gpu is not None for each in targets):
            raise TargetError(
                "the face detector runs on CPUs only so far, and all targets are GPUs: name a CPU "
                "target too, such as native, or leave the detector out"
            )
        return cls(
            model=model,
            targets=targets,
            output=path,
            batch_sizes=sizes,
            tuning_logs=search_path(tuning_logs),
            require_tuned=require_tuned,
            with_runtime=with_runtime,
            dump=folder,
            scaling=Scaling.of(input_range, mean, std),
            channels=channels,
            labels=None if labels is None else labels_of(labels),
            strict=strict,
            model_output=model_output,
            detector=faces,
        )

    @property
    def precision(self) -> Precision:
        """How all of the targets compute GEMMs."""
        return self.targets[0].precision

    def describe(self) -> dict[str, Any]:
        """Return what is worth recording: no paths of the machine that compiled."""
        return {
            "model": os.path.basename(self.model),
            "target": ",".join(target.name for target in self.targets),
            "batch_sizes": list(self.batch_sizes),
            "precision": self.precision,
            "require_tuned": self.require_tuned,
            "with_runtime": self.with_runtime,
            "channels": self.channels,
            "strict": self.strict,
            "model_output": self.model_output,
            "detector": [list(size) for size in self.detector],
        }


def targets_of(
    target: str | dict[str, Any], precision: Precision = "float32"
) -> tuple[ResolvedTarget, ...]:
    """Return the targets of a list of names, such as ``x86-64-v2,x86-64-v3``, or of TVM's JSON.

    Raises
    ------
    TargetError
        For a target that does not exist, several of different architectures or systems, or a
        precision that one does not have.
    ValueError
        For an unknown precision.
    """
    listed = isinstance(target, str) and not target.lstrip().startswith("{")
    names = str(target).split(",") if listed else [target]
    found: dict[str, ResolvedTarget] = {}
    for name in names:
        resolved = resolve(name)
        known = found.setdefault(resolved.name, resolved)
        twins = [
            each.name
            for each in found.values()
            if (each.features, each.gpu) == (resolved.features, resolved.gpu)
        ]
        if known.config != resolved.config or len(twins) > 1:
            alike = " and ".join(dict.fromkeys([*twins, resolved.name]))
            raise TargetError(
                f"the targets {alike} need the same of a CPU, or have the same name, so that none "
                "could be chosen where the library is loaded: leave one of them out"
            )
    targets = tuple(found.values())
    kinds = sorted({f"{each.arch} {each.system}" for each in targets})
    if len(kinds) > 1:
        raise TargetError(
            f"the targets {', '.join(found)} are of {' and '.join(kinds)}: expected one "
            "architecture and system in a library; compile one library for each"
        )
    return tuple(with_precision(each, precision) for each in targets)


def with_precision(target: ResolvedTarget, precision: Precision) -> ResolvedTarget:
    """Return a target that computes with a precision.

    Raises
    ------
    TargetError
        If it is a CPU, which has none but float32.
    ValueError
        If there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision is {precision!r}: expected one of {', '.join(get_args(Precision))}"
        )
    if precision != "float32" and target.gpu is None:
        raise TargetError(
            f"the precision {precision} is for GPUs, and {target.name} is a CPU target: leave "
            "--precision out, or name GPUs alone"
        )
    return replace(target, precision=precision)


def batch_sizes_of(batch_sizes: Iterable[int]) -> tuple[int, ...]:
    """Return batch sizes, increasing and without repetition.

    Raises
    ------
    ValueError
        If there are none, or one is out of 1..4096.
    TypeError
        If one is not a whole number.
    """
    sizes = tuple(sorted({operator.index(size) for size in batch_sizes}))
    if not sizes or sizes[0] < 1 or sizes[-1] > LARGEST_BATCH:
        raise ValueError(
            f"batch sizes are {list(sizes)}: expected one or more, each in 1..{LARGEST_BATCH}"
        )
    return sizes


def _wrong_output(path: Path, model: str | os.PathLike[str]) -> str | None:
    """Say why a library must not take the place of ``path``, or None if it may."""
    if path.is_dir():
        return "is a folder"
    if not path.parent.is_dir():
        return "lies in a folder that does not exist"
    if path.exists() and not path.is_file():
        return "is a device or a pipe"
    if path.exists() and os.path.isfile(model) and path.samefile(model):
        return "is the model"
    if path.name == runtime_library.file_name(cpu.system()):
        return "has the name of TVM's runtime library"
    return None


def _wrong_dump(folder: Path, output: Path) -> str | None:
    """Say why nothing can be dumped into ``folder``, or None if it can."""
    if folder == output:
        return "is the output"
    if folder.exists() and not folder.is_dir():
        return "is not a folder"
    if not folder.parent.is_dir():
        return "lies in a folder that does not exist"
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
        return "cannot be written to"
    return None
