"""Hash what the compiler makes, to prove that a change of its source changed none of it.

    python benchmarks/fingerprint.py before.json
    python benchmarks/fingerprint.py after.json --beside before.json

Builds are deterministic: two versions that lower a model alike write the same image and the same
weights for each target.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import ferplus_tvm as fer
from ferplus_tvm.artifact.library_file import Artifact

TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64", "cuda/sm_90")


def fingerprint(target: str) -> dict[str, Any]:
    """Compile the bundled model for a target, and return the hashes of its parts."""
    with tempfile.TemporaryDirectory() as folder:
        result = fer.compile("bundled", target, Path(folder) / "library.so", (1, 8, 32))
        artifact = Artifact(result.path)
        manifest = artifact.manifest
        return {
            "image": _sha256(artifact.image()),
            "weights": _sha256(artifact.weights),
            "tensors": {
                each.name: _sha256(artifact.weights[each.offset : each.offset + each.nbytes])
                for each in manifest.tensors
            },
            "functions": {
                str(batch): [function.name, *function.weights]
                for batch, function in manifest.functions.items()
            },
        }


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Write the fingerprints of all targets; with ``--beside``, say which differ, and fail then."""
    parser = argparse.ArgumentParser(description="Hash what the compiler makes.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--beside", type=Path)
    arguments = parser.parse_args()
    found = {target: fingerprint(target) for target in TARGETS}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.beside is None:
        return 0
    before = json.loads(arguments.beside.read_text())
    different = [
        f"{target}: {part}"
        for target in TARGETS
        for part in found[target]
        if before[target][part] != found[target][part]
    ]
    print("\n".join(different) or "all images and weights are the same")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
