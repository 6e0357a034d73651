"""Write the bundled network with weights that fp16 cannot represent.

    python benchmarks/full_precision_model.py full.onnx
    ferplus-tvm compile full.onnx -o full.so
    ferplus-tvm bench full.so --model full.onnx

Every weight is changed by up to a ten-thousandth, so the network is as good as before; what it
shows is the speed of a model whose weights were trained and stored in float32, as the zoo's are.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
from onnx import numpy_helper

from ferplus_tvm.importer import load_model
from ferplus_tvm.zoo import resolve


def main() -> None:
    """Change the weights and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    options = parser.parse_args()
    model = load_model(resolve("bundled")).proto
    random = np.random.default_rng(0)
    for stored in model.graph.initializer:
        values = numpy_helper.to_array(stored)
        if values.size > 1:
            changed = values * (1 + 1e-4 * random.uniform(-1, 1, values.shape))
            stored.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), stored.name))
    onnx.save(model, options.output)


if __name__ == "__main__":
    main()
