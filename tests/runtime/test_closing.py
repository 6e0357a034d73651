"""Opening, closing, forgetting and copying engines."""

import gc
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ferplus_tvm as fer
from ferplus_tvm.errors import EngineClosedError
from tests.artifacts import assert_sentence
from tests.network import faces


def test_a_closed_engine_says_so(narrow_library: Path, sample_face: Path) -> None:
    engine = fer.load(narrow_library)
    assert not engine.closed
    engine.close()
    engine.close()

    assert engine.closed and "closed" in repr(engine)
    assert engine.manifest.batch_sizes == (1, 2)
    for call in (
        lambda: engine.scores(faces(1)),
        lambda: engine.predict(sample_face),
        lambda: engine.predict_batch([sample_face]),
    ):
        with pytest.raises(EngineClosedError) as caught:
            call()
        assert_sentence(str(caught.value), str(narrow_library), "load it again")
        assert isinstance(caught.value, RuntimeError)


def test_a_with_block_closes_even_after_an_error(narrow_library: Path) -> None:
    with pytest.raises(ZeroDivisionError), fer.load(narrow_library) as engine:
        raise ZeroDivisionError

    assert engine.closed


def test_a_library_can_be_opened_again_and_twice_at_once(narrow_library: Path) -> None:
    x = faces(3)
    with fer.load(narrow_library) as first:
        expected = first.scores(x).tobytes()
    with fer.load(narrow_library) as second, fer.load(narrow_library) as third:
        assert second.scores(x).tobytes() == third.scores(x).tobytes() == expected


def test_closing_waits_for_calls_under_way(narrow_library: Path) -> None:
    engine = fer.load(narrow_library, threads=1)
    x = faces(2)
    expected = engine.scores(x)
    answers: list[NDArray[np.float32]] = []
    started = threading.Barrier(5)

    def caller() -> None:
        started.wait()
        try:
            while True:
                answers.append(engine.scores(x))
        except EngineClosedError:
            pass

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    started.wait()
    engine.close()
    for thread in callers:
        thread.join(30)

    assert not any(thread.is_alive() for thread in callers)
    assert all(answer.tobytes() == expected.tobytes() for answer in answers)


def test_an_engine_that_is_forgotten_ends_its_thread(narrow_library: Path) -> None:
    before = set(threading.enumerate())
    engine = fer.load(narrow_library)
    engine.scores(faces(1))
    (thread,) = set(threading.enumerate()) - before

    del engine
    gc.collect()
    thread.join(10)

    assert not thread.is_alive()


def test_an_engine_whose_start_fails_leaves_no_thread(
    narrow_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tvm_ffi

    def fail(name: str) -> None:
        raise RuntimeError("made up")

    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(tvm_ffi, "get_global_func", fail)
        with pytest.raises(RuntimeError, match="made up"):
            fer.load(narrow_library)
    for thread in threading.enumerate():
        if thread.name.startswith("ferplus-tvm narrow"):
            thread.join(10)

    assert threading.active_count() <= before
    with fer.load(narrow_library) as engine:
        assert engine.scores(faces(1)).shape == (1, 8)


def test_an_engine_pickles_as_its_path_and_options(narrow_library: Path) -> None:
    with fer.load(narrow_library, threads=1, checksum="manifest") as engine:
        with pickle.loads(pickle.dumps(engine)) as copy:
            assert copy is not engine
            assert (copy.path, copy.threads, copy.device) == (narrow_library, 1, "cpu")
            assert copy.scores(faces(2)).tobytes() == engine.scores(faces(2)).tobytes()
        assert not engine.closed


def test_a_relative_path_outlives_a_change_of_folder(
    narrow_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(narrow_library.parent)
    with fer.load(narrow_library.name) as engine:
        monkeypatch.chdir(tmp_path)
        with pickle.loads(pickle.dumps(engine)) as copy:
            assert copy.path == narrow_library
