"""The model zoo: known FER+ files, each pinned by size and sha256.

::

    registry.py  what there is, where a file lies here, whether it is the promised one   [stdlib]
    fetch.py     download of one file, once, whoever asks for it at the same time
    transfer.py  one address: requests, resuming, telling a model from a web page         [httpx]
    lock.py      one process at a time, released by the system when the process dies     [stdlib]
    data/        the bundled model and its model card

The downloader is not imported here: ``from ferplus_tvm.zoo.fetch import fetch``.
"""

from __future__ import annotations

from ferplus_tvm.zoo.registry import BUNDLED, MODELS, ZooModel, lookup, resolve, verify

__all__ = ["BUNDLED", "MODELS", "ZooModel", "lookup", "resolve", "verify"]
