"""What a file's metadata say of its labels and its pixels, in the forms that people write."""

from __future__ import annotations

import json

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferplus_tvm.artifact.scaling import Scaling
from ferplus_tvm.importer import load_model
from ferplus_tvm.importer.hints import read_hints
from ferplus_tvm.importer.labels import ORDERS, labels_of, same_order
from tests.models import make_weights, official

NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
NUMBERED = dict(enumerate(NAMES))
FORMS = {
    "commas": ",".join(NAMES),
    "semicolons": "; ".join(NAMES),
    "bars": " | ".join(NAMES),
    "quotes": str(NAMES)[1:-1],
    "lines": "\n".join(NAMES) + "\n",
    "numbered lines": "\n".join(f"{at} {name}" for at, name in reversed(NUMBERED.items())),
    "JSON list": json.dumps(NAMES),
    "JSON by number": json.dumps(NUMBERED),
    "JSON by name": json.dumps({name: at for at, name in NUMBERED.items()}),
    "Python's list": str(list(NAMES)),
    "Python's tuple": str(NAMES),
    "Python's dictionary, as ultralytics writes names": str(NUMBERED),
    "YAML's list": f"[{', '.join(NAMES)}]",
    "YAML's dictionary": "{" + ", ".join(f"{at}: {name}" for at, name in NUMBERED.items()) + "}",
    "a data set": "FER2013",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("key", ["labels", "Class Names", "names", "class-labels"])
def test_labels_are_read_in_every_form(key: str, text: str) -> None:
    hints = read_hints({key: text, "author": "x"}, classes=7, channels=1)

    assert (hints.labels, hints.labels_from) == (NAMES, key)
    assert labels_of(text) == NAMES  # as a caller may state them, too
    assert hints.unclear_labels == hints.unclear_scaling == () and hints.scaling is None


@pytest.mark.parametrize(
    ("entries", "scaling"),
    [
        ({"input_range": "0,1"}, ((0, 1),)),
        ({"input_range": "[-1.0, 1.0]"}, ((-1, 1),)),
        ({"pixel_range": "0..255"}, ((0, 255),)),
        ({"pixel_range": "0-255"}, ((0, 255),)),
        ({"pixel_range": "-1 to 1.0"}, ((-1, 1),)),
        ({"std": "1.275e+2"}, (None, None, 127.5)),
        ({"input_range": "-1,1", "mean": "0.5 -0.5 0.0"}, ((-1, 1), (0.5, -0.5, 0))),
        ({"mean": "127.5", "std": "127.5"}, ((0, 255), 127.5, 127.5)),
        ({"input_range": "0 1", "mean": "0.5", "std": "(0.5,)"}, ((0, 1), 0.5, 0.5)),
        ({"Image.NominalPixelRange": "NominalRange_0_255"}, ((0, 255),)),
        ({"Image.NominalPixelRange": "Normalized_0_1"}, ((0, 1),)),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, ((-1, 1),)),
        ({"Image.NominalPixelRange": "NominalRange_16_235"}, ((16, 235),)),
        (
            {"pixel_range": "0,1", "pixel_mean": "[.1, .2, .3]", "pixel_std": "1e-1 .5 .25"},
            ((0, 1), (0.1, 0.2, 0.3), (0.1, 0.5, 0.25)),
        ),
    ],
    ids=str,
)
def test_the_scaling_is_read(entries: dict[str, str], scaling: tuple[object, ...]) -> None:
    hints = read_hints(entries, classes=7, channels=3)

    assert hints.scaling == Scaling.of(*scaling)  # type: ignore[arg-type]
    assert hints.unclear_scaling == ()
    assert all(key in hints.scaling_from for key in entries)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"labels": "a,b,c"}, "3 names for a model of 7 classes"),
        ({"labels": "labels.txt"}, "no list of names"),
        ({"labels": "a,a,b,c,d,e,f"}, "'a' twice"),
        ({"id2label": str({at: f"LABEL_{at}" for at in range(7)})}, "numbers, not names"),
        ({"classes": "0,1,2,3,4,5,6"}, "numbers, not names"),
        ({"labels": ",".join(NAMES), "classes": str(sorted(NAMES))}, "but classes"),
        ({"mean": "0.485", "std": "0.229"}, "may be of pixels in 0..1 or in 0..255"),
        ({"mean": "0.5 0.5 0.5", "input_range": "0,1"}, "numbers of 3 channels for a model of 1"),
        ({"input_range": "zero to one"}, "one to three numbers"),
        ({"Image.NominalPixelRange": "Bytes"}, "one to three numbers"),
        ({"std": "1e999"}, "finite"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_said(entries: dict[str, str], says: str) -> None:
    hints = read_hints(entries, classes=7, channels=1)

    (sentence,) = hints.unclear_labels + hints.unclear_scaling
    assert says in sentence and hints.scaling is None
    assert all(key in sentence for key in entries)


@pytest.mark.parametrize(
    "entries",
    [
        {"input_range": "0,1", "Image.NominalPixelRange": "NominalRange_0_255"},
        {"input_range": "0,1", "mean": "0.5", "image_mean": "0.4"},
        {"input_range": "0,1", "std": "0.5", "input_std": "half"},
    ],
    ids=str,
)
def test_entries_that_contradict_each_other_are_told(entries: dict[str, str]) -> None:
    hints = read_hints(entries, classes=7, channels=1)

    *_, first, second = entries
    (sentence,) = hints.unclear_scaling
    assert f"{first} {entries[first]!r}, but {second} {entries[second]!r}" in sentence
    assert hints.scaling is not None and hints.scaling.input_range == (0, 1)


def test_a_number_of_classes_is_no_list_of_names() -> None:
    assert read_hints({"classes": "7", "labels": ""}, 7, 1).unclear_labels == ()


HOSTILE = [
    "[" * 4000,
    "(" * 4096,
    "{" * 100_000,
    "[" + "-" * 4000 + "1]",
    "[" + "not " * 1000 + "1]",
    "[" + "9" * 4000 + "]",
    "[1" + "+1j" * 1300 + "]",
    "{[]: 1}",
    "{'a': {'b': 1}}",
    "[9**9**9]",
    "[\0]",
    r"['\d', '\q', '\e']",
    "a,\0,b",
    "\ud800,b",
    "," * 100_000,
    "1 " * 2000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_hostile_text_is_passed_over_in_a_short_sentence(text: str) -> None:
    hints = read_hints({"labels": text, "mean": text, "std": text}, classes=2, channels=1)

    assert hints.labels is None and hints.scaling is None
    assert len(hints.unclear_labels) == len(hints.unclear_scaling) == 1
    for sentence in hints.unclear_labels + hints.unclear_scaling:
        assert len(sentence) < 500 and sentence.isprintable()


@given(st.dictionaries(st.sampled_from(["labels", "names", "mean", "std"]), st.text()))
def test_any_text_can_be_read(entries: dict[str, str]) -> None:
    hints = read_hints(entries, classes=2, channels=1)
    assert hints.labels is None or len(hints.labels) == 2


def test_the_file_s_own_metadata_reach_the_reader() -> None:
    model = official(make_weights())
    onnx.helper.set_model_props(model, {"labels": "a,b,c,d,e,f,g,h"})

    imported = load_model(model.SerializeToString())

    assert read_hints(imported.metadata, 8, 1).labels == tuple("abcdefgh")


# --- labels that a caller states -------------------------------------------------------------


def test_labels_are_stated_as_a_list_or_as_text_or_by_name() -> None:
    assert labels_of(list(NAMES)) == labels_of(" angry,disgust, fear,happy,sad,surprise,neutral")
    assert labels_of("fer2013") == labels_of("FER2013") == NAMES
    assert labels_of({name: at for at, name in NUMBERED.items()}) == labels_of(NUMBERED) == NAMES
    assert labels_of("affectnet8")[-1] == "contempt" and labels_of("ferplus")[0] == "neutral"


def test_every_order_is_of_different_names() -> None:
    for name, labels in ORDERS.items():
        assert labels_of(labels) == labels == labels_of(name)


@pytest.mark.parametrize(
    "wrong", ["fer2014", [], ["a"], ["a", ""], ["a", "a"], ["a", "b\tc"], "a,"]
)
def test_labels_that_cannot_be_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="labels"):
        labels_of(wrong)  # type: ignore[arg-type]


def _type(wrong: object) -> str:
    return type(wrong).__name__  # the order in which a set shows itself differs between processes


@pytest.mark.parametrize("wrong", [["a", 1], 5, {"a", "b"}, {"a": 1, "b": 2}, b"a,b"], ids=_type)
def test_labels_without_text_or_order_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"labels is .*in the order of the scores"):
        labels_of(wrong)  # type: ignore[arg-type]


def test_the_same_names_are_in_the_same_order_only_if_each_is() -> None:
    assert same_order(["Happy", "sad"], ["happiness", "sadness"])
    assert not same_order(["sad", "sadder"], ["sadder", "sad"])
