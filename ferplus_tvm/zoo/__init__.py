"""The model zoo: FER+ model files that are known by name, each with its size and sha256.

::

    registry.py  the models, where their files lie on this machine, and their verification
    fetch.py     the download of a model, by one process at a time          [filelock]
    transfer.py  the transfer from one address, which can be resumed        [httpx]
    data/        the bundled model and its model card

`ferplus_tvm.zoo.fetch` is not imported here, because looking a model up needs no download.
"""

from __future__ import annotations

from ferplus_tvm.zoo.registry import BUNDLED, MODELS, ZooModel, lookup, resolve, verify

__all__ = ["BUNDLED", "MODELS", "ZooModel", "lookup", "resolve", "verify"]
