"""Workloads and configurations as plain JSON values, and back.

A configuration is ``{"algorithm": ..., field: whole number, ...}``; a workload is its fields with
the operator's name (`Conv.key`, `Dense.key`).
"""

from __future__ import annotations

import json
from typing import Any

from ferplus_tvm.errors import TuningLogError
from ferplus_tvm.kernels.backend import Algorithm, Backend, Config
from ferplus_tvm.kernels.workloads import Conv, Dense

Record = dict[str, Any]
"""A configuration as JSON has it."""

_OPERATORS: dict[str, type[Conv] | type[Dense]] = {"conv2d": Conv, "dense": Dense}


def encode(config: Config) -> Record:
    """Return a configuration as JSON values."""
    return {"algorithm": str(config.algorithm), **vars(config)}


def decode(record: Record, w: Conv | Dense, backend: Backend) -> Config:
    """Return the configuration of a record.

    Raises
    ------
    TuningLogError
        If it is none of the kernels for the workload.
    """
    values = dict(record)
    try:
        algorithm = Algorithm(values.pop("algorithm", None))
        config: Config = backend.config_types[algorithm](**values)
        found = config.algorithm
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(w, f"{error}") from None
    if not all(type(value) is int for value in values.values()):
        raise _misfit(w, "its fields are not whole numbers")
    if found is not algorithm:
        raise _misfit(w, f"it says {algorithm} and has the fields of {found}")
    return config


def decode_candidate(record: Record, w: Conv | Dense, backend: Backend) -> Config:
    """Return the configuration of a record, which has to be one that the backend offers.

    Raises
    ------
    TuningLogError
        If it is none, or one that the kernel could not be emitted with.
    """
    config = decode(record, w, backend)
    if config not in backend.candidates(w):
        raise _misfit(w, f"{config} is not among its candidates")
    return config


def canonical(w: Conv | Dense) -> str:
    """Return a text that is the same for the same workload."""
    return json.dumps(w.key, sort_keys=True)


def workload_of(key: dict[str, Any]) -> Conv | Dense:
    """Return the workload of a key.

    Raises
    ------
    ValueError
        If it is none.
    """
    values = {name: _as_tuple(value) for name, value in key.items()}
    kind: type[Any] | None = _OPERATORS.get(values.pop("op", ""))
    try:
        if kind is not None:
            workload: Conv | Dense = kind(**values)
            return workload
    except TypeError:
        pass  # a field that it has not, or one that is missing
    raise ValueError("it is not a workload of this version")


def _as_tuple(value: Any) -> Any:
    """Return what JSON has as a list as the tuple that it was, at every depth."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _misfit(w: Conv | Dense, why: str) -> TuningLogError:
    return TuningLogError(
        f"the tuning record of {w.name} does not fit it ({why}): tune again with this version, or "
        "leave the log out"
    )
