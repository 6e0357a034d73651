"""Print the README's command line that ends in the given word: CI runs what users copy."""

import sys
from pathlib import Path

readme = Path(__file__).parents[1] / "README.md"
lines = [line.strip() for line in readme.read_text(encoding="utf-8").splitlines()]
(command,) = (
    line for line in lines if line.startswith("pip install") and line.endswith(sys.argv[1])
)
print(command)
