"""Compile in a process of its own, so that whatever ends it is an error message here.

TVM, LLVM and onnx's converter are native code over a file that may come from anywhere.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

from ferplus_tvm import child
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import CompileError


def compile_isolated(
    *arguments: Any, progress: Callable[[str], None] = lambda stage: None, **options: Any
) -> CompileResult:
    """Do what `ferplus_tvm.compile` does, with the same arguments, results and errors.

    Arguments and options are sent to the process, so batch sizes have to be a list or tuple.

    Raises
    ------
    CompileError
        Also if the process dies, as by a crash of native code or for want of memory; what was
        there before is still there.
    """
    stage = "start"
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            child.python("-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=child.environment(),
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                pickle.dump((arguments, options), process.stdin)
            while (message := _next(process.stdout)) is not None:
                kind, content = message
                if kind == "error":
                    raise content
                if kind == "result":
                    result: CompileResult = content
                    return result
                stage = content
                progress(stage)
        except BaseException:
            # It removes what it has begun, unless it has ended already.
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            raise
        status = process.wait()
        said.seek(0)
        raise _died(status, stage, said.read().decode(errors="replace"))


def _next(stream: IO[bytes]) -> tuple[str, Any] | None:
    """Read a message, or None where the process ended without the last one."""
    try:
        message: tuple[str, Any] = pickle.load(stream)
        return message
    except (EOFError, pickle.UnpicklingError):
        return None


def _died(status: int, stage: str, said: str) -> CompileError:
    how = f"with status {status}"
    if status < 0:
        how = f"by {signal.Signals(-status).name}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:200]}" if lines else ""
    return CompileError(
        f"the compiler's process ended {how} in the stage '{stage}'{last}: nothing was written; "
        "see that there is memory for it, and report this with the model and the output of "
        "'ferplus-tvm doctor'"
    )


def _main() -> None:
    # Whatever native code prints must not come between the messages.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(kind: str, content: Any) -> None:
        pickle.dump((kind, content), messages)
        messages.flush()

    arguments, options = pickle.load(sys.stdin.buffer)
    try:
        from ferplus_tvm.compiler.pipeline import compile

        result = compile(*arguments, progress=lambda stage: send("stage", stage), **options)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        send("error", _sendable(error))
    else:
        send("result", result)


def _sendable(error: Exception) -> Exception:
    """Return the error, or where it cannot be sent one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _main()
