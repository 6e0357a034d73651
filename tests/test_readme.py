"""The README's commands and code do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ferplus_tvm.data import SAMPLE_FACE
from ferplus_tvm.targets import NAMED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def environment(*first_on_path: Path) -> dict[str, str]:
    """This process's environment, from which another folder finds this package too."""
    path = [*map(str, first_on_path), os.environ["PATH"]]
    packages = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
    }


@pytest.fixture
def workplace(library: Path, tmp_path: Path) -> Path:
    """A folder with what the README's commands name."""
    shutil.copy(library, tmp_path / "ferplus.so")
    face = Image.open(SAMPLE_FACE)
    face.save(tmp_path / "face.jpg")
    (tmp_path / "faces").mkdir()
    face.save(tmp_path / "faces" / "one.png")
    return tmp_path


def test_the_readme_has_code() -> None:
    assert blocks("python") and blocks("bash")


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str, workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "happiness" in done.stdout


@pytest.mark.parametrize("script", blocks("bash"))
def test_bash_block_runs(script: str, workplace: Path) -> None:
    # The command as this interpreter has it, whatever else is on the path.
    command = workplace / "bin" / "ferplus-tvm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ferplus_tvm "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=workplace,
        env=environment(command.parent),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_named_target_is_in_the_table() -> None:
    assert [name for name in NAMED if f"`{name}`" not in README] == []
