"""Other versions of Python than the one at hand: the dependencies can be had for each."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def requirements(extra: str) -> set[str]:
    """Return what the package and an extra need, extras of its own followed."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found = set(project["dependencies"])
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"ferplus_tvm\[(.+)\]", requirement)
        if own:
            for name in own[1].split(","):
                found |= requirements(name)
        else:
            found.add(requirement)
    return found


def test_the_extra_for_tests_includes_what_the_others_need() -> None:
    assert requirements("test") >= requirements("compile") | requirements("tune")
    assert any(each.startswith("apache-tvm==") for each in requirements("compile"))


@pytest.mark.long  # asks the package index
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_dependency_has_a_wheel(version: str, tmp_path: Path) -> None:
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", f"--target={tmp_path}"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options]
    wanted = sorted(requirements("test"))
    done = subprocess.run(
        [*command, f"--python-version={version}", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
