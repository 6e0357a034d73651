import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ferplus_tvm as fer
from ferplus_tvm.errors import GpuError, InputError
from ferplus_tvm.host import cpu
from tests.artifacts import assert_sentence
from tests.network import faces

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


# --- right answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 37])
def test_scores_are_those_of_onnxruntime(
    engine: fer.Engine, onnx_scores: Scorer, count: int
) -> None:
    x = faces(count, seed=count)
    expected = onnx_scores(x)

    scores = engine.scores(x)

    assert scores.dtype == np.float32 and scores.shape == (count, 8)
    tolerance = 1e-4 * np.abs(expected).max(initial=0)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(scores.argsort(axis=1), expected.argsort(axis=1))


def test_the_sample_face_is_happy(engine: fer.Engine, sample_face: Path) -> None:
    result = engine.predict(sample_face)

    assert result.label == "happiness" and result.probability > 0.5
    assert result == engine.predict(str(sample_face))
    assert result == engine.predict(sample_face.read_bytes())
    assert result.scores == tuple(engine.scores(fer.preprocess(sample_face))[0].tolist())


def test_options_of_preprocess_reach_it(engine: fer.Engine) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

    bgr = engine.predict(colour[..., ::-1], channel_order="BGR")

    assert bgr == engine.predict(colour)
    assert bgr != engine.predict(colour, channel_order="BGR")


def test_a_batch_may_mix_what_predict_takes(engine: fer.Engine, sample_face: Path) -> None:
    picture = Image.open(sample_face).convert("RGB")
    array = faces(1)[0, 0]
    mixture = [sample_face, picture, array, sample_face.read_bytes(), io.BytesIO(b"")]
    mixture[-1] = io.BytesIO(sample_face.read_bytes())

    results = engine.predict_batch(mixture)

    assert len(results) == 5
    alone = [engine.predict(item) for item in (sample_face, picture, array)]
    for result, expected in zip(results, [*alone, alone[0], alone[0]], strict=True):
        np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-3)
        assert result.class_ids == expected.class_ids


def test_no_faces_give_no_predictions(engine: fer.Engine) -> None:
    assert engine.predict_batch([]) == []


def test_faces_come_back_in_order_from_a_batch_of_many_parts(engine: fer.Engine) -> None:
    x = faces(29)

    results = engine.predict_batch(x)

    assert [result.class_ids for result in results] == [
        engine.predict(face).class_ids for face in x[:, 0]
    ]


def test_the_callers_array_is_not_changed_and_the_answer_is_the_callers(
    engine: fer.Engine,
) -> None:
    x = faces(3)
    before = x.copy()

    first = engine.scores(x)
    kept = first.copy()
    engine.scores(faces(3, seed=9))

    assert same_bits(x, before) and same_bits(first, kept)
    assert first.flags.writeable and first.flags.owndata


# --- any array -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_every_alignment_gives_the_same_bits(engine: fer.Engine, count: int) -> None:
    x = faces(count)
    expected = engine.scores(x)
    room = np.zeros(x.nbytes + 64, np.uint8)

    for offset in range(64):
        moved = np.ndarray(x.shape, np.float32, room.data, offset)
        moved[...] = x
        assert same_bits(engine.scores(moved), expected), offset


def strided() -> dict[str, Callable[[NDArray[np.float32]], NDArray[np.generic]]]:
    """Ways to hold the same whole numbers in another memory layout or type."""

    def within(x: NDArray[np.float32]) -> NDArray[np.float32]:
        wide = np.full((len(x) * 2, 3, 70, 200), np.nan, np.float32)
        wide[::2, 1:2, 3:67, 5:197:3] = x
        return wide[::2, 1:2, 3:67, 5:197:3]

    return {
        "Fortran order": np.asfortranarray,
        "negative strides": lambda x: x[::-1, :, ::-1, ::-1].copy()[::-1, :, ::-1, ::-1],
        "transposed": lambda x: x.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0),
        "slice of a larger array": within,
        "big endian": lambda x: x.astype(">f4"),
        "read-only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
        "float64": lambda x: x.astype(np.float64),
        "big-endian float64": lambda x: x.astype(">f8"),
        "float16": lambda x: x.astype(np.float16),
        "uint8": lambda x: x.astype(np.uint8),
        "int64": lambda x: x.astype(np.int64),
        "unaligned record field": lambda x: np.rec.fromarrays(
            [np.zeros(x.shape, np.uint8), x], dtype=[("a", "u1"), ("b", "<f4")]
        )["b"],
    }


@pytest.mark.parametrize("way", strided())
@pytest.mark.parametrize("count", [1, 4])
def test_every_layout_and_type_gives_the_same_bits(
    engine: fer.Engine, way: str, count: int
) -> None:
    x = np.round(faces(count))

    assert same_bits(engine.scores(strided()[way](x)), engine.scores(x))


def test_lists_and_objects_with_an_array_are_taken(engine: fer.Engine) -> None:
    x = np.round(faces(1))

    class Tensor:
        def __array__(self, *_: object, **__: object) -> NDArray[np.float32]:
            return x

    assert same_bits(engine.scores(x.tolist()), engine.scores(x))
    assert same_bits(engine.scores(Tensor()), engine.scores(x))


# --- wrong input -----------------------------------------------------------------------------


class Unreadable:
    def __array__(self, *_: object, **__: object) -> NDArray[np.float32]:
        raise RuntimeError("it lies on a GPU")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (np.zeros((64, 64)), "(64, 64)"),
        (np.zeros((1, 64, 64)), "(1, 64, 64)"),
        (np.zeros((1, 64, 64, 1)), "(1, 64, 64, 1)"),
        (np.zeros((1, 1, 64, 65)), "(1, 1, 64, 65)"),
        (np.zeros((2, 3, 64, 64)), "(2, 3, 64, 64)"),
        (np.zeros((0,)), "(0,)"),
        ("face.jpg", "str"),
        (None, "NoneType"),
        ([[1, 2], [3]], "list"),
        (Unreadable(), "it lies on a GPU"),
        (np.zeros((1, 1, 64, 64), complex), "complex128"),
        (np.zeros((1, 1, 64, 64), object), "object"),
        (np.zeros((1, 1, 64, 64), "M8[s]"), "datetime64"),
        (np.full((1, 1, 64, 64), np.nan), "NaN or infinite"),
        (np.full((1, 1, 64, 64), -np.inf), "NaN or infinite"),
        (np.full((1, 1, 64, 64), 1e300), "NaN or infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arrays_are_refused_in_a_sentence(
    engine: fer.Engine, wrong: object, named: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine.scores(wrong)  # type: ignore[arg-type]

    assert_sentence(str(caught.value), "scores takes", named)
    assert isinstance(caught.value, ValueError)


def test_one_bad_pixel_among_many_faces_is_refused(engine: fer.Engine) -> None:
    x = faces(11)
    x[10, 0, 63, 63] = np.nan

    with pytest.raises(InputError):
        engine.scores(x)


def test_predict_takes_exactly_one_face(engine: fer.Engine) -> None:
    with pytest.raises(InputError) as caught:
        engine.predict(faces(2))

    assert_sentence(str(caught.value), "2 were given", "predict_batch")


def test_a_bad_picture_in_a_batch_is_named(engine: fer.Engine, sample_face: Path) -> None:
    with pytest.raises(InputError, match="item 2 of 3"):
        engine.predict_batch([sample_face, b"not a picture", sample_face])


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_a_value_error(library: Path, threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}: expected 1 or more"):
        fer.load(library, threads=threads)


@pytest.mark.parametrize("threads", [1.5, "2"])
def test_threads_of_another_type_is_a_type_error(library: Path, threads: object) -> None:
    before = threading.active_count()

    with pytest.raises(TypeError):
        fer.load(library, threads=threads)  # type: ignore[arg-type]

    assert threading.active_count() == before


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:first", "cuda:-1", "rocm:0", ""])
def test_another_device_is_a_value_error(library: Path, device: str) -> None:
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda', or a GPU such as 'cuda:1'"):
        fer.load(library, device=device)


def test_on_a_cpu_nothing_is_computed_on_a_gpu(library: Path) -> None:
    with fer.load(library) as engine, pytest.raises(GpuError) as caught:
        engine.scores_on_gpu(faces(1))
    assert_sentence(str(caught.value), "device='cuda:0'", "scores")


# --- the same bits, always -------------------------------------------------------------------


def test_a_face_gives_the_same_bits_run_after_run_and_engine_after_engine(
    engine: fer.Engine, library: Path
) -> None:
    x = faces(12)
    expected = engine.scores(x)

    for _ in range(3):
        assert same_bits(engine.scores(x), expected)
    with fer.load(library, threads=2) as again:
        assert same_bits(again.scores(x), expected)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_number_of_threads_does_not_change_a_bit(
    engine: fer.Engine, library: Path, count: int
) -> None:
    x = faces(count)

    for threads in (1, 3):
        with fer.load(library, threads=threads, checksum="manifest") as other:
            assert same_bits(other.scores(x), engine.scores(x))


@pytest.mark.parametrize("batch", [3, 8])
def test_its_neighbours_in_a_batch_do_not_change_a_bit_of_a_face(
    engine: fer.Engine, batch: int
) -> None:
    x = faces(batch)
    together = engine.scores(x)
    order = np.random.default_rng(0).permutation(batch)
    blank = np.zeros_like(x)
    blank[batch - 1] = x[0]

    assert same_bits(engine.scores(x[order]), together[order])
    assert same_bits(engine.scores(blank)[batch - 1], together[0])


def test_a_batch_larger_than_any_compiled_one_gives_the_bits_of_its_parts(
    engine: fer.Engine,
) -> None:
    x = faces(8 + 8 + 3 + 1)
    parts = [engine.scores(part) for part in np.split(x, [8, 16, 19])]

    assert same_bits(engine.scores(x), np.concatenate(parts))


def test_fewer_faces_than_the_smallest_batch_give_the_bits_of_a_full_one(
    other_library: Path,
) -> None:
    x = faces(3)
    with fer.load(other_library) as pairs:  # batch size 2 only
        full = pairs.scores(np.concatenate([x, faces(1, seed=5)]))

        assert same_bits(pairs.scores(x), full[:3])
        assert same_bits(pairs.scores(x[:1]), full[:1])


# --- what it says of itself ------------------------------------------------------------------


def test_an_engine_tells_its_path_and_threads(engine: fer.Engine, library: Path) -> None:
    threads = min(2, len(cpu.allowed()))
    assert (engine.path, engine.threads, engine.device) == (library, threads, "cpu")
    assert repr(engine) == f"<Engine {str(library)!r} threads={threads}>"
