"""The manifests of a library as JSON, which is read before the dynamic loader sees the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ferplus_tvm.artifact.manifest import Manifest
from ferplus_tvm.errors import ArtifactDamagedError


def to_json(manifests: Sequence[Manifest]) -> bytes:
    """Return the manifests of a library as UTF-8 JSON, a list."""
    listed = [manifest.to_dict() for manifest in manifests]
    return json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()


def from_json(text: bytes) -> tuple[Manifest, ...]:
    """Read the manifests of a library, whose checksum has been verified.

    Raises
    ------
    ArtifactDamagedError
        If they are not manifests of this format all the same.
    """
    try:
        listed = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(listed, list) or not listed:
            raise ValueError("it is not a list")
        return tuple(Manifest.from_dict(values) for values in listed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactDamagedError(
            f"the library's manifest cannot be read ({error}): expected the fields of its "
            "format; compile the library again"
        ) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")
