"""Print the README's commands for the demonstration and for the tests: CI runs what users copy."""

from pathlib import Path

readme = Path(__file__).parents[1] / "README.md"
lines = [line.strip() for line in readme.read_text(encoding="utf-8").splitlines()]
for extra, does in (("compile", "ferplus-tvm demo"), ("test", "pytest")):
    (command,) = (
        line for line in lines if line.startswith(f"pip install '.[{extra}]'") and does in line
    )
    print(command, "|| exit")
