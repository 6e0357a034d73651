"""Run functions in a Python process of its own, so that a crash of native code is an error here.

Requests and answers are pickles on the process's standard input and output.  What native code
prints goes to a temporary file, whose last line an error can quote.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from ferplus_tvm.host.temporary import temporary_file

T = TypeVar("T")

_PATIENCE = 5  # seconds for a process that is to end by itself


class ChildDiedError(Exception):
    """The process ended before it had answered.

    Attributes
    ----------
    how
        How it ended, as part of a sentence: ``by SIGSEGV`` or ``with status 7``.
    last_line
        The last line that it printed, at most 200 characters, or "".
    """

    def __init__(self, how: str, last_line: str) -> None:
        super().__init__(how, last_line)
        self.how = how
        self.last_line = last_line


class ChildTimeoutError(Exception):
    """The process had not answered in time, and was killed."""


class Child:
    """A Python process that calls functions, one at a time.

    The process keeps its modules, and what functions left in them, from one call to the next.  A
    terminal's Ctrl-C does not reach it.  It ends when it is closed, and when this process ends.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """Start the process.

        Parameters
        ----------
        variables
            Its environment variables, by default those that `environment` returns.

        Raises
        ------
        OSError
            If no process can be started.
        TemporaryFolderError
            If there is no room for what it prints.
        """
        with contextlib.ExitStack() as failed:
            self._printed = failed.enter_context(temporary_file())
            self._process = subprocess.Popen(
                python("-m", "ferplus_tvm.host.child"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env=environment() if variables is None else variables,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
            failed.pop_all()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def call(
        self,
        function: Callable[..., T],
        *arguments: Any,
        timeout: float,
        progress: Callable[[Any], object] | None = None,
    ) -> T:
        """Call a function in the process, and return what it returns.

        Parameters
        ----------
        function
            A function at the top level of a module that both processes can import.
        arguments
            Its arguments, which are pickled.
        timeout
            Seconds after which the process is killed.
        progress
            Called here with what the function reports: it gets a callable for that as its last
            argument.  Without it, the function gets the arguments alone.

        Raises
        ------
        ChildDiedError
            If the process ends before it has answered.
        ChildTimeoutError
            If it takes longer than the timeout.
        Exception
            What the function raises, or a RuntimeError that quotes what cannot be pickled.
        """
        request = pickle.dumps((function, arguments, progress is not None))
        request = pickle.dumps(request)  # the process unpickles it where an error is answered
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, give_up)
        timer.daemon = True
        timer.start()
        try:
            answer = self._exchange(request, progress)
            status = self._process.wait() if answer is None else 0
        except BaseException:  # an interrupt, or an error of the callback
            self._interrupt()
            raise
        finally:
            timer.cancel()
        if answer is None:
            if late.is_set():
                raise ChildTimeoutError
            raise ChildDiedError(_how(status), self._last_line())
        kind, content = answer
        if kind == "error":
            raise content
        result: T = content
        return result

    def close(self) -> None:
        """End the process, at the latest some seconds after what it is doing; again is harmless."""
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # by which it knows
        try:
            self._process.wait(2 * _PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._printed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(
        self, request: bytes, progress: Callable[[Any], object] | None
    ) -> tuple[str, Any] | None:
        """Send a request, pass on progress, and return the answer, or None from a dead process."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(request)
            self._requests.flush()
        while True:
            try:
                kind, content = pickle.load(self._answers)
            except (EOFError, pickle.UnpicklingError):
                return None
            if kind != "progress":
                return kind, content
            if progress is not None:
                progress(content)

    def _interrupt(self) -> None:
        """Have the process remove what it has begun and end, and kill it if it does not."""
        if os.name == "posix":
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        self._process.kill()

    def _last_line(self) -> str:
        self._printed.seek(0)
        text = self._printed.read().decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


def python(*arguments: str) -> list[str]:
    """Return the command of this Python, to which nothing in the current folder is a module."""
    return [sys.executable, "-P", *arguments]


def environment() -> dict[str, str]:
    """Return this process's environment, in which a child finds this package too."""
    parent = str(Path(__file__).parents[2])
    paths = [parent, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _how(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):  # a real-time signal has no name
            return f"by {signal.Signals(-status).name}"
    return f"with status {status}"


def _serve() -> None:
    """Answer requests until there are no more; in the child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    # Whatever native code prints or reads must not come between requests and answers.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                received.put(pickle.load(requests))
        received.put(None)
        if busy.is_set():  # the parent has ended
            _end()

    def send(message: bytes) -> None:
        answers.write(message)
        answers.flush()

    def report(content: Any) -> None:
        send(pickle.dumps(("progress", content)))

    threading.Thread(target=listen, daemon=True).start()
    while (request := received.get()) is not None:
        busy.set()
        try:
            function, arguments, reports = pickle.loads(request)
            content = function(*arguments, *([report] if reports else []))
            answer = pickle.dumps(("result", content))
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            answer = pickle.dumps(("error", _sendable(error)))
        busy.clear()
        send(answer)


def _end() -> None:
    """Have the main thread remove what it has begun, and end the process."""
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)  # which also wakes what blocks
    else:
        _thread.interrupt_main()
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
    _serve()
