"""The inputs that a library is checked with."""

from __future__ import annotations

import numpy as np
import pytest

from ferplus_tvm.artifact import reference_inputs

FER2013_SIZE, RGB = (1, 48, 48), (3, 90, 90)


def test_those_of_fer_plus_are_numpys_noise_and_enlarged_noise() -> None:
    # What libraries of FER+ have in their manifests was computed from these numbers.
    random = np.random.RandomState(7)
    noise = random.randint(0, 256, (3, 64, 64))
    blobs = np.kron(random.randint(0, 256, (3, 8, 8)), np.ones((8, 8), np.int64))

    x = reference_inputs.inputs(7, 3)

    np.testing.assert_array_equal(x[:, 0], [noise[0], blobs[1], noise[2]])


@pytest.mark.parametrize("face", [FER2013_SIZE, RGB, (1, 32, 32), (3, 224, 224)])
def test_those_of_another_network_have_its_shape(face: tuple[int, int, int]) -> None:
    x = reference_inputs.inputs(1, 2, face)

    assert x.shape == (2, *face) and x.dtype == np.float32
    assert x.min() >= 0 and x.max() <= 255 and (x == np.round(x)).all()
    assert len(np.unique(x[1])) <= 64 * face[0] < len(np.unique(x[0])) * face[0]
    if face[0] == 3:
        assert not np.array_equal(x[:, 0], x[:, 1])
