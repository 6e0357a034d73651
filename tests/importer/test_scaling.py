"""A stated scaling becomes part of the tidy graph, which then answers as the file does."""

from __future__ import annotations

import numpy as np
import pytest

from ferplus_tvm.artifact.scaling import RAW, Scaling
from ferplus_tvm.errors import ModelShapeError
from ferplus_tvm.importer import load_model
from tests.importer.networks import Net
from tests.importer.support import run
from tests.models import SCALINGS, faces, make_weights, pytorch_style

WEIGHTS = make_weights(seed=3)
SCALED = {
    "0..1": Scaling.of((0, 1)),
    "-1..1": Scaling.of((-1, 1)),
    "normalised": Scaling.of((0, 1), 0.5, 0.25),
    "mean": Scaling.of(mean=131.0),
}


@pytest.mark.parametrize("scaling", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize("own", SCALINGS)
def test_raw_pixels_give_what_the_file_gives_for_its_own(own: str, scaling: Scaling) -> None:
    model = pytorch_style(WEIGHTS, batch=3, scaling=own).SerializeToString()
    x = faces(3)

    tidy = load_model(model, scaling=scaling).proto

    expected = run(model, scaling.values(x))
    np.testing.assert_allclose(run(tidy, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    operators = [node.op_type for node in tidy.graph.node]
    assert operators.count("Sub") <= 1 and operators.count("Mul") <= 1
    assert operators.index("Conv") <= 2  # one step with the graph's own


def test_0_to_1_is_one_multiplication() -> None:
    net = Net()
    x = net.pool(net.add("Relu", net.conv("faces", 1, 4)), kernel_shape=[8, 8], strides=[8, 8])
    model = net.model(net.dense(net.add("Flatten", x, axis=1), 4 * 64, 8)).SerializeToString()

    operators = [n.op_type for n in load_model(model, scaling=SCALED["0..1"]).proto.graph.node]

    assert operators[:2] == ["Mul", "Conv"]
    assert load_model(model, scaling=RAW).proto == load_model(model).proto


def test_channels_are_taken_where_the_file_leaves_them_open() -> None:
    net = Net()
    x = net.pool(net.add("Relu", net.conv("faces", 3, 4)), kernel_shape=[8, 8], strides=[8, 8])
    scores = net.dense(net.add("Flatten", x, axis=1), 4 * 64, 8)
    model = net.model(scores, ("N", "C", 64, 64)).SerializeToString()

    assert load_model(model, channels=3).channels == 3


def test_other_channels_than_the_file_s_are_refused() -> None:
    model = pytorch_style(WEIGHTS).SerializeToString()
    with pytest.raises(ModelShapeError, match="channels=3 is stated"):
        load_model(model, channels=3)
    assert load_model(model, channels=1) == load_model(model)
