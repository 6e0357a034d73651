"""Compiled libraries and other things that many tests share."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
import pytest
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.compiler.pipeline import CompileResult
from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.host.temporary import remove_abandoned
from tests import rgb
from tests.chains import Chain
from tests.network import make_weights
from tests.official import official

if TYPE_CHECKING:
    from tests.videos.cameras import Cameras

T = TypeVar("T")
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SLOWEST = tuple(
    f"tests/{name}"
    for name in (
        "tuning/test_tune",
        "kernels/test_winograd",
        "bench/test_run",
        "docs/test_blocks",
        "robust/test_crashes",
        "compiler/test_fleet",
        "cuda/test_runtime",
        "cuda/test_tune",
        "robust/test_isolated",
        "cli/test_verbs",
        "compiler/test_accuracy",
        "compiler/test_compiled_variants",
    )
)
ORT_FILE = ".ses"  # which onnxruntime writes when it is imported, and leaves


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write which tests were skipped and why, where this environment variable names a file."""
    file = os.environ.get("FERPLUS_SKIPPED_TESTS")
    if file:
        reports = terminalreporter.stats.get("skipped", [])
        reasons = {each.nodeid: each.longrepr[2].removeprefix("Skipped: ") for each in reports}
        Path(file).write_text(json.dumps(reasons, indent=1))


def pytest_configure() -> None:
    # No test depends on how busy the machine is.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    # A shell keeps Ctrl-C from what it starts in the background.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOWEST))


@pytest.fixture(autouse=True, scope="session")
def no_tuning_logs_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep out what the person who runs the tests has tuned."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="session")
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have all temporary files in a folder of their own, and see at the end that it is empty."""
    folder = tmp_path_factory.mktemp("tmp")  # short: sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
        end = time.monotonic() + 10  # for processes that are about to end
        while True:
            remove_abandoned()  # of processes that tests have killed
            left = {str(path.relative_to(folder)) for path in folder.rglob("*")} - {ORT_FILE}
            if not left or time.monotonic() > end:
                break
            time.sleep(0.1)
    assert not left, f"temporary files are left behind: {sorted(left)}"


class Shared:
    """Makes things once for all worker processes of a run of tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, build: Callable[[Path], T]) -> T:
        """Return what ``build`` returns for a new folder of this name; the result is pickled."""
        folder, result = self.folder / name, self.folder / f"{name}.pickle"
        with FileLock(self.folder / f"{name}.lock", timeout=600):
            if not result.exists():
                folder.mkdir(exist_ok=True)  # of a build that has failed
                result.write_bytes(pickle.dumps(build(folder)))
            made: T = pickle.loads(result.read_bytes())
            return made


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return Shared(folder)


@pytest.fixture(scope="session")
def compiled(shared: Shared) -> CompileResult:
    """The bundled model, compiled for this machine at batch sizes 1, 3 and 8."""
    return shared.make(
        "library",
        lambda folder: fer.compile(output=folder / "ferplus.so", batch_sizes=(8, 1, 3)),
    )


@pytest.fixture(scope="session")
def library(compiled: CompileResult) -> Path:
    return compiled.path


@pytest.fixture(scope="session")
def engine(library: Path) -> Iterator[fer.Engine]:
    """An engine over ``library`` with two threads; not to be closed."""
    with fer.load(library, threads=2) as opened:
        yield opened


@pytest.fixture(scope="session")
def narrow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of the same network with an eighth of the channels and random weights."""
    path = tmp_path_factory.mktemp("narrow") / "narrow.onnx"
    onnx.save(official(make_weights(seed=0, width=8)), path)
    return path


@pytest.fixture(scope="session")
def narrow_library(shared: Shared, narrow_model: Path) -> Path:
    """The narrow model, compiled for this machine at batch sizes 1 and 2."""
    return shared.make(
        "narrow_library",
        lambda folder: fer.compile(narrow_model, output=folder / "narrow.so", batch_sizes=(1, 2)),
    ).path


@pytest.fixture(scope="session")
def other_library(shared: Shared, narrow_model: Path) -> Path:
    """The narrow model at batch size 2 only: other code, the same answers."""
    return shared.make(
        "other_library",
        lambda folder: fer.compile(narrow_model, output=folder / "other.so", batch_sizes=(2,)),
    ).path


@pytest.fixture(scope="session")
def rgb_library(shared: Shared) -> Path:
    """The network of `tests.rgb`, compiled for this machine at batch sizes 1 and 3."""

    def build(folder: Path) -> Path:
        model = folder / "rgb.onnx"
        onnx.save(rgb.network(), model)
        made = fer.compile(model, output=folder / "rgb.so", batch_sizes=(1, 3), labels=rgb.LABELS)
        return made.path

    return shared.make("rgb_library", build)


@pytest.fixture(scope="session")
def detector_library(shared: Shared, narrow_model: Path) -> Path:
    """The narrow model at batch size 1, and the face detector in two sizes."""

    def build(folder: Path) -> Path:
        sizes = [(640, 640), (320, 320)]
        output = folder / "faces.so"
        return fer.compile(narrow_model, output=output, batch_sizes=(1,), detector=sizes).path

    return shared.make("detector_library", build)


@pytest.fixture
def cameras(shared: Shared, tmp_path: Path) -> Cameras:
    """Cameras for programs that run in their environment; none is plugged in yet."""
    from tests.videos.cameras import Cameras, built

    library = shared.make("cameras", built)
    if isinstance(library, str):
        pytest.skip(library)
    return Cameras(library, tmp_path)


@pytest.fixture(scope="session")
def onnx_scores() -> Scorer:
    """Score faces with onnxruntime on the bundled model's file, which takes one at a time."""
    import onnxruntime

    from ferplus_tvm.zoo import resolve

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(resolve("bundled")), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def score(faces: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = [session.run(None, {name: faces[i : i + 1]})[0] for i in range(len(faces))]
        return np.concatenate(rows) if rows else np.empty((0, 8), np.float32)

    return score


@pytest.fixture(scope="session")
def sample_face() -> Path:
    return SAMPLE_FACE


@pytest.fixture
def no_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any test in which a file reaches the dynamic loader."""
    from ferplus_tvm.runtime import loader

    def fail(*_: object) -> None:
        pytest.fail("the file reached the dynamic loader")

    monkeypatch.setattr(loader, "open_module", fail)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Run code in a Python of its own, which must end well and silently; return what it prints."""

    def run(code: str, *arguments: object, timeout: float = 60, **environment: str) -> str:
        package_parent = str(Path(fer.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "PYTHONPATH": package_parent, **environment},
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of two convolutions with pooling and a dense layer."""
    chain = Chain().conv("first", 16).relu("r1").pool("p1")
    chain = chain.conv("second", 32).relu("r2").pool("p2").flatten().dense("last")
    path = tmp_path_factory.mktemp("short") / "short.onnx"
    onnx.save(chain.model(), path)
    return path
