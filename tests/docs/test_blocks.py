"""Every code block of the pages does what it says, or says why it is not run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from ferplus_tvm import cli, targets
from ferplus_tvm.data import SAMPLE_FACE
from tests.docs.pages import BLOCKS, NO_CODE, PAGES, ROOT, RUN, Block, blocks_of


def test_blocks_are_found_on_the_pages_that_have_some() -> None:
    pages = {block.page.name for block in BLOCKS}

    assert {"README.md", "CONTRIBUTING.md", "compile.md", "runtime.md", "tuning.md"} <= pages
    assert {block.language for block in BLOCKS if block.is_run} == set(RUN)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_fenced_has_a_language_and_is_run_or_says_why_not(block: Block) -> None:
    assert block.language is not None, "it is indented: fence it"
    assert block.language, "its fence names no language"
    if block.language not in NO_CODE:
        assert block.is_run or block.reason, "put <!-- not run: WHY --> on the line before it"


def test_what_is_neither_run_nor_explained_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n    indented\n\n```\nno language\n```\n\n```bash\nrun\n```\n\n"
        "<!-- not run: a reason -->\n```python\nexplained\n```\n\n"
        "<!-- not run: -->\n```bash\nno reason\n```\n"
    )
    found = [(block.language, block.is_run, block.reason) for block in blocks_of(page)]

    assert found == [
        (None, False, None),
        ("", False, None),
        ("bash", True, None),
        ("python", False, "a reason"),
        ("bash", True, None),
    ]


@pytest.fixture
def workplace(library: Path, tmp_path: Path) -> Path:
    """A folder with what the pages name: a library, faces and a folder of faces."""
    os.link(library, tmp_path / "ferplus.so")
    face = Image.open(SAMPLE_FACE)
    face.save(tmp_path / "face.jpg")
    twelve_bits = np.asarray(face.convert("L")).astype(np.uint16) << 4
    Image.fromarray(twelve_bits).save(tmp_path / "infrared.png")
    (tmp_path / "faces").mkdir()
    face.save(tmp_path / "faces" / "one.png")
    # The commands as this interpreter has them, whatever else is on the path.
    commands = {
        "ferplus-tvm": f'"{sys.executable}" -m ferplus_tvm',
        "python": f'"{sys.executable}"',
    }
    (tmp_path / "bin").mkdir()
    for name, command in commands.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    return tmp_path


def run(command: Sequence[str], folder: Path) -> str:
    """Run a command in a folder, where this package is found too; return what it prints."""
    packages = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def those(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.is_run and block.language == language]


@pytest.mark.parametrize("block", those("python"), ids=str)
def test_a_python_block_runs(block: Block, workplace: Path) -> None:
    said = run([sys.executable, "-c", block.code], workplace)

    assert "happiness" in said  # each predicts the bundled face


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("block", those("bash"), ids=str)
def test_a_bash_block_runs(block: Block, workplace: Path) -> None:
    for target in re.findall(r"compile .*--target (\S+)", block.code):
        if not targets.resolve(target).runs_here:
            pytest.skip(f"it verifies a library for {target}, which this machine cannot run")
    run(["bash", "-euo", "pipefail", "-c", block.code], workplace)


def command_lines(code: str) -> Iterator[list[str]]:
    """Give the arguments of every ``ferplus-tvm`` in a block."""
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|| > ", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["ferplus-tvm"]:
                yield words[1:]


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if any(command_lines(block.code))], ids=str
)
def test_every_option_of_the_command_line_exists(block: Block) -> None:
    for arguments in command_lines(block.code):
        parse(arguments)


def parse(arguments: Sequence[str]) -> None:
    """Parse a command line and run nothing of it."""
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(command.name, list(arguments))


def test_an_option_that_does_not_exist_is_seen() -> None:
    parse(["compile", "-o", "ferplus.so"])
    with pytest.raises(Exception, match="--no-such-option"):
        parse(["compile", "--no-such-option"])


def test_the_readme_fits_on_a_page_and_says_how_to_install_and_test() -> None:
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 130
    for extra, command in (("compile", "ferplus-tvm demo"), ("test", "pytest")):  # as .ci/run does
        install = f"pip install '.[{extra}]' && {command}"
        assert sum(line.startswith(install) for line in lines) == 1
