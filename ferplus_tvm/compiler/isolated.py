"""Compile in a process of its own, so that whatever ends it is an error message here.

TVM, LLVM and onnx's converter are native code over a file that may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

from ferplus_tvm.compiler import pipeline
from ferplus_tvm.compiler.options import CompileOptions
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import CompileError
from ferplus_tvm.host.child import Child, ChildDiedError, ChildTimeoutError
from ferplus_tvm.host.temporary import remove_abandoned


def run(options: CompileOptions, timeout: float, progress: Callable[[str], None]) -> CompileResult:
    """Run the pipeline in a process of its own; it ends with this one, and logs nothing.

    Parameters
    ----------
    options
        What to compile.
    timeout
        Seconds after which the process is ended.
    progress
        Called here with each stage as it starts.

    Raises
    ------
    CompileError
        Also if the process dies, as by a crash of native code or for want of memory, or takes
        longer than the timeout.
    """
    stage = "start"

    def enter(name: str) -> None:
        nonlocal stage
        stage = name
        progress(name)

    try:
        process = Child()
    except OSError as error:
        raise CompileError(
            f"no process could be started to compile in ({error.strerror or error}): try again"
        ) from error
    with process:
        try:
            return process.call(pipeline.run, options, timeout=timeout, progress=enter)
        except ChildTimeoutError:
            remove_abandoned()  # the temporary folder of the process
            raise CompileError(
                f"the compiler took more than {timeout:g} s and was ended in the stage '{stage}': "
                "expected some seconds; see that the machine is not busy, or allow more"
            ) from None
        except ChildDiedError as death:
            remove_abandoned()
            said = f"; its last words: {death.last_line}" if death.last_line else ""
            raise CompileError(
                f"the compiler's process ended {death.how} in the stage '{stage}'{said}: no half "
                "of a library was left; see that there is memory for it, and report this with the "
                "model and the output of 'ferplus-tvm doctor'"
            ) from None
