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
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.errors import CompileError
from ferplus_tvm.host import child

_PATIENCE = 5  # seconds for a process that is to end by itself


def compile_isolated(
    *arguments: Any,
    timeout: float = 3600,
    progress: Callable[[str], None] = lambda stage: None,
    **options: Any,
) -> CompileResult:
    """Do what `ferplus_tvm.compile` does, with the same arguments, results and errors.

    Arguments and options are sent to the process, so batch sizes have to be a list or tuple.  It
    ends with this one, and logs nothing.

    Raises
    ------
    CompileError
        Also if the process dies, as by a crash of native code or for want of memory, or takes more
        than ``timeout`` seconds.
    """
    stage = "start"
    late = threading.Event()
    with tempfile.TemporaryFile() as said, _started(said) as process:
        assert process.stdin is not None and process.stdout is not None

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                pickle.dump((arguments, options), process.stdin)
                process.stdin.flush()  # and kept open: that it closes tells of this process's end
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
            _interrupt(process)
            raise
        finally:
            timer.cancel()
        status = process.wait()
        said.seek(0)
        if late.is_set():
            raise CompileError(
                f"the compiler took more than {timeout:g} s and was ended in the stage '{stage}': "
                "expected some seconds; see that the machine is not busy, or allow more"
            )
        raise _died(status, stage, said.read().decode(errors="replace"))


@contextlib.contextmanager
def _started(said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process, out of reach of the terminal's Ctrl-C, and see it end."""
    try:
        process = subprocess.Popen(
            child.python("-m", __name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=child.environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise CompileError(
            f"no process could be started to compile in ({error.strerror or error}): try again"
        ) from error
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        process.wait()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Have the process remove what it has begun and end, and end it if it does not."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    process.kill()


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
        with contextlib.suppress(ValueError):  # a real-time signal has no name
            how = f"by {signal.Signals(-status).name}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:200]}" if lines else ""
    return CompileError(
        f"the compiler's process ended {how} in the stage '{stage}'{last}: no half of a library "
        "was left; see that there is memory for it, and report this with the model and the output "
        "of 'ferplus-tvm doctor'"
    )


def _main() -> None:
    # Whatever native code prints must not come between the messages.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(kind: str, content: Any) -> None:
        pickle.dump((kind, content), messages)
        messages.flush()

    arguments, options = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from ferplus_tvm.compiler.pipeline import compile

        result = compile(*arguments, progress=lambda stage: send("stage", stage), **options)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        send("error", _sendable(error))
    else:
        send("result", result)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)  # which removes what is half-written
    time.sleep(_PATIENCE)
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """Return the error, or where it cannot be sent one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _main()
