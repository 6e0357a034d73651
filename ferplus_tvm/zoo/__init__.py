"""The model zoo: model files that are known by name, each with its size and sha256.

::

    models.py    the models and their archives, each with size, sha256 and addresses
    names.py     which model a name that is not quite one of them means
    registry.py  where the files lie on this machine, and their verification
    fetch.py     the download of a model, by one process at a time          [filelock]
    transfer.py  the transfer from one address, which can be resumed        [httpx]
    archive.py   the test data of a model, taken out of the zoo's archive
    data/        the bundled models, their licences and model cards

`ferplus_tvm.zoo.fetch` is not imported here, because looking a model up needs no download.
"""

from __future__ import annotations

from ferplus_tvm.zoo.models import BUNDLED, DETECTOR, MODELS, ZooFile, ZooModel
from ferplus_tvm.zoo.registry import lookup, resolve, verify

__all__ = ["BUNDLED", "DETECTOR", "MODELS", "ZooFile", "ZooModel", "lookup", "resolve", "verify"]
