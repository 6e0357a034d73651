"""Draw what ``ferplus-tvm demo`` prints on this machine: ``python benchmarks/demo_picture.py``.

It writes docs/demo.svg, which the README shows.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console

PICTURE = Path(__file__).parents[1] / "docs" / "demo.svg"
COMMAND = "ferplus-tvm demo"


def main() -> None:
    """Run the demo and draw what it prints."""
    ran = [sys.executable, "-m", "ferplus_tvm", "demo"]
    printed = subprocess.run(ran, stdout=subprocess.PIPE, text=True, check=True).stdout
    console = Console(record=True, width=75, file=io.StringIO(), force_terminal=True)
    console.print(f"[bold]$ {COMMAND}[/bold]", highlight=False)
    console.print(printed.rstrip(), highlight=False, markup=False)
    console.save_svg(str(PICTURE), title="")


if __name__ == "__main__":
    main()
