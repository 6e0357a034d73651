"""Install each way to the emotions of a photo into an environment of its own, and measure it.

    python benchmarks/installed_size.py --json docs/installed.json
    python benchmarks/installed_size.py --keep peers   # for benchmarks/photos.py --peers-in peers

Packages are those that pip installs beside itself, with all that they need.  What has to be
downloaded before the first answer comes on top, and so does a model: ``also`` says which.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
# The last OpenCV that reads the file of YuNet.
OPENCV = "opencv-python-headless>=4.8,<5"

_DETECTOR = "that of a detector"


class Way(NamedTuple):
    """What to install.

    Attributes
    ----------
    packages
        As ``pip install`` takes them.
    also
        What is needed beside them.
    """

    packages: tuple[str, ...]
    also: str


WAYS = {
    "ferplus_tvm": Way((str(ROOT),), "the library, 82 MB, and libtvm_runtime, 3.4 MB"),
    "opencv": Way((OPENCV, "onnxruntime"), "the models, 35 MB"),
    "deepface": Way(
        # Without werkzeug and with OpenCV 5, as pip chooses by itself, deepface 0.0.103 fails.
        ("deepface", "opencv-contrib-python-headless<5", "werkzeug"),
        "the models, 6 MB, downloaded",
    ),
    "fer": Way(("fer",), "nothing"),
    "emotiefflib": Way(
        ("emotiefflib[onnx]", "opencv-python<5"),
        f"the model, 16 MB, downloaded, and {_DETECTOR}",
    ),
    "hsemotion": Way(
        ("hsemotion-onnx", "opencv-python<5"),
        f"the model, 16 MB, downloaded, and {_DETECTOR}",
    ),
}


def measure(name: str, way: Way, folder: Path) -> dict[str, Any]:
    """Make the environment, and return its size; an error of pip's is the answer, too."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [str(python), "-m", "pip"]
    packages = next(folder.glob("**/site-packages"))
    before = _bytes(packages)
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", *way.packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"name": name, "error": done.stderr.strip().splitlines()[-1]}
    listed = subprocess.run(
        [*pip, "list", "--format=json"], capture_output=True, text=True, check=True
    )
    found = {each["name"]: each["version"] for each in json.loads(listed.stdout)}
    found = {each: found[each] for each in found if each not in ("pip", "setuptools")}
    size = _bytes(packages) - before
    return {"name": name, "bytes": size, "packages": found, "also": way.also}


def _bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc")


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(WAYS), help="names, separated by commas")
    parser.add_argument("--keep", type=Path, help="a folder in which the environments stay")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only.split(","):
            folder = (options.keep or Path(temporary)) / name
            found.append(measure(name, WAYS[name], folder))
            if "error" in found[-1]:
                print(f"{name}: {found[-1]['error']}")
            else:
                size, count = found[-1]["bytes"] / 1e6, len(found[-1]["packages"])
                print(f"{name}: {size:.0f} MB, {count} packages; also {found[-1]['also']}")
            if options.keep is None:
                shutil.rmtree(folder)
    if options.json:
        about = {"system": platform.system(), "machine": platform.machine()}
        record = {**about, "python": platform.python_version(), "ways": found}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
