"""The command ``ferplus-tvm``; also ``python -m ferplus_tvm``."""

from __future__ import annotations

import sys

from ferplus_tvm.errors import MissingExtraError


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        import platformdirs as _platformdirs  # noqa: F401
        import rich as _rich  # noqa: F401
        import typer as _typer  # noqa: F401
    except ModuleNotFoundError:
        print(f"error: {MissingExtraError.of('the command line', 'cli')}", file=sys.stderr)
        sys.exit(1)
    from ferplus_tvm.cli import run

    run()


if __name__ == "__main__":
    main()
