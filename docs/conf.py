"""The site of README and pages: ``sphinx-build -W --keep-going -b html -c docs . docs/_build``.

The source folder is the repository itself, so that every page links to the others as on GitHub.
Building and viewing need no network.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import ferplus_tvm

ROOT = Path(__file__).parents[1]
REPORTS = ("bench", "bench-batch-32")
NAVIGATION = """
```{toctree}
:hidden:
:caption: Use

docs/compile
docs/own-models
docs/photos
docs/videos
docs/camera
docs/runtime
docs/targets
docs/gpu
docs/tuning
examples/cpp/README
docs/api
```

```{toctree}
:hidden:
:caption: Measure

docs/benchmarks
docs/peers
docs/bench
```

```{toctree}
:hidden:
:caption: Look inside

docs/architecture
docs/artifact-format
tuning_logs/README
ferplus_tvm/zoo/data/MODEL_CARD
CONTRIBUTING
SECURITY
CHANGELOG
```
"""
"""The navigation, which GitHub would show as a code block in the README."""

project = "ferplus_tvm"
author = "the ferplus_tvm authors"
version = release = ferplus_tvm.__version__
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/*.md"]
include_patterns += ["examples/cpp/*.md", "tuning_logs/*.md", "ferplus_tvm/zoo/data/*.md"]
exclude_patterns = ["docs/_build", "docs/_templates", ".*", "build", "dist", "**/node_modules"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]

myst_heading_anchors = 3
default_role = "py:obj"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Source": "Source", "ArrayLike": "ArrayLike"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "ferplus_tvm"
html_show_sourcelink = False
html_copy_source = False
templates_path = ["_templates"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "navbar_center": [],
    "navbar_persistent": [],
    "navbar_end": ["search-button-field", "theme-switcher"],
    "primary_sidebar_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"**": ["navigation"]}


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the navigation to the front page."""
    if page == root_doc:
        source[0] += NAVIGATION


def add_reports(app: Sphinx, error: Exception | None) -> None:
    """Put the benchmark's own reports beside the pages that link to them, and an index page."""
    if error is not None:
        return
    for name in REPORTS:
        if (ROOT / "docs" / name).is_dir():
            shutil.copytree(ROOT / "docs" / name, app.outdir / "docs" / name, dirs_exist_ok=True)
    (app.outdir / "index.html").write_text(
        '<!doctype html><meta http-equiv="refresh" content="0; url=README.html">\n'
    )


def setup(app: Sphinx) -> None:
    """Connect the two."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_reports)
