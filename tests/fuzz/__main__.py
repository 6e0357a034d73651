"""Fuzz a reader, guided by coverage (Linux; needs the extra ``fuzz``).

    python -m tests.fuzz importer -max_total_time=600

What makes a reader fail is left as a file ``crash-*``: mend it, and add the file to the corpus,
which the ordinary tests replay.  Options behind the name are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["ferplus_tvm", "PIL"]):
    from tests.fuzz.targets import CORPUS, TARGETS


def main() -> None:
    """Fuzz the reader that is named, from the corpus, without writing into it."""
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as found:
        limits = ["-timeout=20", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], *limits, *options, found, str(CORPUS / name)], TARGETS[name])
        atheris.Fuzz()


main()
