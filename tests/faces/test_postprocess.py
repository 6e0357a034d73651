"""Scores become probabilities, a ranking and a Prediction."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from decimal import Decimal, localcontext

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferplus_tvm.errors import InputError
from ferplus_tvm.faces.labels import EMOTIONS
from ferplus_tvm.faces.postprocess import Prediction, postprocess

SCORES = [0.5, 3.0, -1.0, 2.0, 0.25, -4.0, 1.0, -0.5]
rows = st.one_of(
    hnp.arrays(np.float64, 8, elements=st.floats(-30, 30)),
    hnp.arrays(np.float64, 8, elements=st.floats(allow_nan=False, allow_infinity=False)),
    hnp.arrays(np.float32, 8, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
    hnp.arrays(np.float64, 8, elements=st.sampled_from([0.0, -0.0, 1.0, 1e308, -1e308, 5e-324])),
)


def exact_softmax(scores):
    """Softmax with 60 digits and without exponents that overflow."""
    with localcontext(prec=60, Emin=-(10**9), Emax=10**9):
        largest = max(Decimal(s) for s in scores)
        shifted = [Decimal(s) - largest for s in scores]
        exponentials = [d.exp() if d > -10000 else Decimal(0) for d in shifted]
        return [float(e / sum(exponentials)) for e in exponentials]


def test_the_prediction_says_what_the_scores_mean():
    (result,) = postprocess(SCORES)
    assert result.label == "happiness"
    assert result.class_ids == (1, 3, 6, 0, 4, 7, 2, 5)
    assert [label for label, _ in result.ranking] == [EMOTIONS[c] for c in result.class_ids]
    assert result.ranking[0] == (result.label, result.probability)
    assert tuple(result.probabilities) == EMOTIONS
    assert result.probabilities == dict(result.ranking)
    assert result.scores == tuple(SCORES)
    assert list(result.probabilities.values()) == pytest.approx(exact_softmax(SCORES), rel=1e-14)
    assert str(result) == f"happiness ({100 * exact_softmax(SCORES)[1]:.1f} %)"


def test_str_rounds_to_a_tenth_of_a_per_cent():
    certain, torn = postprocess([[0, 99, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 5, 0]])
    assert str(certain) == "happiness (100.0 %)"
    assert str(torn) == "neutral (49.0 %)"


@given(rows)
def test_softmax_is_right_for_any_finite_scores(scores):
    (result,) = postprocess(scores)
    probabilities = list(result.probabilities.values())
    expected = exact_softmax(scores.tolist())
    assert probabilities == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert math.fsum(probabilities) == pytest.approx(1, rel=1e-14)
    assert all(0 <= p <= 1 for p in probabilities)


@given(rows)
def test_the_ranking_decreases_and_ties_go_to_the_higher_score_then_the_lower_id(scores):
    (result,) = postprocess(scores)
    probabilities = list(result.probabilities.values())
    keys = [(-probabilities[c], -result.scores[c], c) for c in result.class_ids]
    assert keys == sorted(keys)
    assert sorted(result.class_ids) == list(range(8))


def test_equal_scores_rank_by_class_id():
    (result,) = postprocess([1.0] * 8)
    assert result.class_ids == tuple(range(8))
    assert set(result.probabilities.values()) == {0.125}


def test_adding_a_constant_to_all_scores_changes_no_probability():
    shifted = postprocess([[s + c for s in SCORES] for c in (-1024, 0, 1024)])
    assert shifted[0].ranking == shifted[1].ranking == shifted[2].ranking


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 1), (3, 8, 1, 1)])
def test_a_batch_gives_a_prediction_for_each_row(shape):
    batch = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    results = postprocess(batch.reshape(shape))
    assert results == [postprocess(row)[0] for row in batch]
    assert [r.scores for r in results] == [tuple(row) for row in batch.tolist()]


def test_one_row_and_no_row_give_lists_too():
    assert postprocess(SCORES) == postprocess([SCORES])
    assert postprocess(np.zeros((0, 8), np.float32)) == []


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "longdouble", "i4", "u1"])
def test_every_real_number_type_is_taken_and_left_unchanged(dtype):
    scores = np.array([[3, 1, 4, 1, 5, 9, 2, 6]], dtype)
    scores.flags.writeable = False
    assert postprocess(scores) == postprocess([3, 1, 4, 1, 5, 9, 2, 6])


@pytest.mark.parametrize(
    "shape", [(), (7,), (9,), (0,), (8, 1), (2, 7), (8, 2), (1, 1, 8), (2, 8, 2)]
)
def test_another_shape_is_refused_by_name(shape):
    with pytest.raises(InputError) as caught:
        postprocess(np.zeros(shape))
    assert f"the shape {shape}; expected (8,) or (N, 8)" in str(caught.value)


def test_other_labels_are_those_of_the_scores_in_their_order():
    labels = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    (result,) = postprocess(SCORES[:7], labels)
    assert result.label == "disgust" and result.class_ids == (1, 3, 6, 0, 4, 2, 5)
    assert list(result.probabilities) == labels
    assert list(result.probabilities.values()) == pytest.approx(exact_softmax(SCORES[:7]))
    assert [label for label, _ in result.ranking] == [labels[c] for c in result.class_ids]


@pytest.mark.parametrize("classes", [2, 7, 64])
def test_scores_need_as_many_labels(classes):
    labels = [f"class {i}" for i in range(classes)]
    assert len(postprocess(np.zeros((3, classes)), labels)) == 3
    with pytest.raises(InputError, match=rf"expected \({classes},\) or \(N, {classes}\)"):
        postprocess(SCORES, labels)
    with pytest.raises(InputError, match="the labels of that model"):
        postprocess(np.zeros((3, classes)))


def test_labels_that_are_the_same_are_a_value_error():
    with pytest.raises(ValueError, match="another name for each class"):
        postprocess([1.0, 2.0], ["yes", "yes"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused_with_their_face(bad):
    batch = np.zeros((4, 8))
    batch[2, 5] = bad
    with pytest.raises(InputError, match="face 3 of 4 hold NaN or infinity"):
        postprocess(batch)


@pytest.mark.parametrize(
    "scores", ["happiness", None, [True] * 8, [1j] * 8, [[1] * 8, [1] * 7], ["1"] * 8, {"a": 1}]
)
def test_what_is_not_numbers_is_refused(scores):
    with pytest.raises(InputError, match="expected"):
        postprocess(scores)


def test_to_dict_goes_through_json_unchanged():
    (result,) = postprocess(np.array(SCORES, np.float32))
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "label": result.label,
        "probability": result.probability,
        "probabilities": result.probabilities,
        "ranking": [list(pair) for pair in result.ranking],
        "class_ids": list(result.class_ids),
        "scores": list(result.scores),
    }


def test_predictions_are_values():
    one, other, different = postprocess([SCORES, SCORES, SCORES[::-1]])
    assert one == other and hash(one) == hash(other)
    assert one != different
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    assert isinstance(one, Prediction)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.scores = ()
    one.probabilities["neutral"] = 9.0
    assert one == other and one.probabilities == other.probabilities
