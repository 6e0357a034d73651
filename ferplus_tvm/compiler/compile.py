"""The public function `ferplus_tvm.compile`."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from ferplus_tvm.compiler import isolated as isolation
from ferplus_tvm.compiler import pipeline
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import MissingExtraError
from ferplus_tvm.targets import Precision

_log = logging.getLogger(__name__)


def compile(
    model: str | os.PathLike[str] = "bundled",
    target: str | dict[str, Any] = "native",
    output: str | os.PathLike[str] = "ferplus.so",
    batch_sizes: Iterable[int] = (1, 8, 32),
    *,
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
    detector: bool | Iterable[tuple[int, int]] = False,
    isolated: bool = False,
    timeout: float = 3600,
    progress: Callable[[str], None] = lambda stage: None,
) -> CompileResult:
    """Compile a FER+ model into a library for a target, or for several.

    Parameters
    ----------
    model
        A name of the zoo (a string such as ``"bundled"``) or the path of an ONNX file.
    target
        ``"native"``, a name of `ferplus_tvm.list_targets`, ``"cuda"`` for this machine's GPU, a
        GPU such as ``"cuda/sm_90"``, or TVM's dictionary or JSON.  Several names with commas
        between them make one library for all, of which the best part that a CPU or GPU can run is
        chosen when it is loaded; weights of the same layout and type are stored once.
    output
        The library to write; it takes its final name once it is whole and verified.
    batch_sizes
        The batch sizes to compile for; an engine serves any number of faces with them.
    precision
        ``"float32"``, or for GPUs ``"tf32"`` and ``"float16"``: GEMMs on tensor cores, of numbers
        with 11 significant bits, and with ``"float16"`` activations of half the size.  Scores are
        then off by some thousandths of the largest.
    tuning_logs
        A folder of tuning logs to look into before the user's own and those that the package
        carries.  A target without a log takes that of the nearest target.
    require_tuned
        Refuse to use a preset where no record is found.
    with_runtime
        Put a copy of the target's ``libtvm_runtime`` beside the library.
    dump
        A folder, existing or new, to write what the compiler saw after each phase into: the tidy
        ONNX model, Relax as imported, and for each target Relax with kernel calls, TensorIR, and
        assembly or CUDA source.  Files of an earlier dump are replaced.
    input_range
        ``(low, high)``: what black and white are to the model's file, such as ``(0, 1)`` for a
        network that was trained on ``x / 255`` outside of its graph.  The library does that
        itself: its faces are raw pixels 0..255 whatever the file wants.
    mean, std
        What was subtracted, and divided by, in that range: one number, or one for each channel.
        Without ``input_range`` they have to be such as only pixels 0..255 have.
    channels
        1 for grey faces or 3 for RGB, where the file leaves it open; otherwise it is checked.
    labels
        The names of the classes in the order of the scores, or a mapping with their numbers such
        as torchvision's ``class_to_idx``, or a data set's name: ``"ferplus"``, ``"fer2013"``,
        ``"affectnet8"``, ``"affectnet7"`` or ``"rafdb"``.
    strict
        Refuse what would otherwise be a warning: a model of which something has to be assumed, or
        whose metadata contradict what is stated.
    model_output
        The name of the output that holds the scores, for a model of several.
    detector
        Put a face detector into the library, for whole pictures: the bundled YuNet, for CPUs.
        True compiles it for pictures of (320, 320), (384, 640), (640, 384), (480, 640), (640, 480)
        and (640, 640); other sizes are given in the same way, (height, width), in multiples of 32.
    isolated
        Compile in a process of its own, in which a crash of native code over a broken model, or a
        lack of memory, is a `CompileError`.  It logs nothing, and ends with this process.
    timeout
        Seconds after which an isolated compilation is ended; without ``isolated`` there is no
        limit.
    progress
        Called with the name of each stage as it starts: ``import``, ``reference``, ``lower``,
        ``compile``, ``link``, ``verify``.

    Returns
    -------
    CompileResult
        The library that was written, and what it says of itself.

    Raises
    ------
    MissingExtraError
        If a package that only compiling needs is not installed.
    ModelError, DownloadError
        If the model cannot be had or compiled, does not have the channels or classes that are
        stated, or with ``strict`` needs a warning.
    ValueError, TypeError
        For arguments that cannot be, or that may mean two things.
    TargetError
        If the target does not exist, several are of different architectures or systems, or a
        detector is asked for and all are GPUs.
    TuningLogError
        If the tuning logs are missing or damaged, or a record that is required is not there.
    TemporaryFolderError
        If the folder for temporary files is full, or cannot be written to.
    CompileError
        If linking or a GPU's compiler fails, the library's scores are off the reference, or the
        output or the dump cannot be written; or if an isolated compilation dies or takes longer
        than the timeout.
    """
    if importlib.util.find_spec("tvm") is None:
        raise MissingExtraError.of("compiling (no module tvm)", "compile")
    options = CompileOptions.of(
        model=model,
        target=target,
        output=output,
        batch_sizes=batch_sizes,
        precision=precision,
        tuning_logs=tuning_logs,
        require_tuned=require_tuned,
        with_runtime=with_runtime,
        dump=dump,
        input_range=input_range,
        mean=mean,
        std=std,
        channels=channels,
        labels=labels,
        strict=strict,
        model_output=model_output,
        detector=detector,
    )
    pipeline.expect_tools(options)  # here, since a process of its own takes seconds to start
    result = (
        isolation.run(options, timeout, progress) if isolated else pipeline.run(options, progress)
    )
    for sentence in result.notes:
        _log.info("%s: %s", options.model, sentence)
    for sentence in result.warnings:
        _log.warning("%s: %s", options.model, sentence)
    return result
