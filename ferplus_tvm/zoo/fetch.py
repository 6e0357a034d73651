"""Download of one zoo model: once, verified, whoever else asks for it at the same time.

Beside the final name lie ``NAME.part``, what has been received so far, and ``NAME.lock``, an
empty file that says by its lock who is downloading. The final name appears only by renaming a
partial file whose size and sha256 are right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ferplus_tvm.errors import DownloadError, MissingExtraError
from ferplus_tvm.host.lock import exclusive
from ferplus_tvm.zoo.registry import CACHE_VARIABLE, ZooModel, is_intact, local_path, verify

if TYPE_CHECKING:
    from ferplus_tvm.zoo.transfer import AddressError, Progress


def fetch(model: ZooModel, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make sure that a zoo model lies on this machine, and return its path.

    A file that is there and intact, the bundled model among them, needs no network. Otherwise
    the addresses are tried in order. A download that was cut is resumed, in this call and in
    later ones, and a second caller waits for the first one.

    Parameters
    ----------
    model : ZooModel
        An entry of the registry, see :func:`ferplus_tvm.zoo.lookup`.
    progress : callable, optional
        Called with the bytes that are here and the bytes of the whole file. The first number
        starts above zero where a download is resumed, and falls where it has to start again.

    Raises
    ------
    DownloadError
        No address gave the promised file, or it cannot be stored.
    MissingExtraError
        The packages of the extra ``cli`` are not installed.
    """
    if not model.addresses:
        return verify(model)
    path = local_path(model)
    report = progress or (lambda done, total: None)
    partial = path.with_name(path.name + ".part")

    def waiting() -> None:
        report(partial.stat().st_size if partial.exists() else 0, model.size)

    try:
        if is_intact(model, path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_name(path.name + ".lock"), waiting):
            # Another process may have fetched it while this one waited.
            if not is_intact(model, path):
                _download(model, path, partial, report)
                os.replace(partial, path)
    except OSError as error:
        raise DownloadError(
            f"model {model.name!r} cannot be stored in {path.parent} ({error}): make room or "
            f"make it writable, or name another folder in the variable {CACHE_VARIABLE}"
        ) from error
    return path


def _download(model: ZooModel, path: Path, partial: Path, progress: Progress) -> None:
    """Fill the partial file from the first address that gives the promised content."""
    try:
        import httpx

        from ferplus_tvm.zoo import transfer
    except ImportError as error:
        raise MissingExtraError.of("fetching a model", "cli") from error
    try:
        client = httpx.Client(follow_redirects=True, timeout=transfer.TIMEOUT)
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"model {model.name!r} cannot be fetched with the proxy or certificate settings of "
            f"the environment ({' '.join(str(error).split())}): correct them"
        ) from error
    failures: list[tuple[str, AddressError]] = []
    with client:
        for address in model.addresses:
            try:
                transfer.Transfer(client, model, address, partial, progress).run()
                return
            except transfer.AddressError as error:
                failures.append((address, error))
    raise DownloadError(_describe(model, path, failures)) from failures[-1][1]


def _describe(model: ZooModel, path: Path, failures: list[tuple[str, AddressError]]) -> str:
    """Say in one sentence what was tried, why it failed, and what the user can do."""
    if all(error.unreachable for _, error in failures):
        what = "there seems to be no network, since nobody answered"
    else:
        what = "no address gave the promised file"
    tried = "; ".join(f"{address}: {error}" for address, error in failures)
    return (
        f"model {model.name!r} could not be fetched: {what} ({tried}); try again later, or place "
        f"the file of {model.size} bytes with sha256 {model.sha256} by hand as {path}"
    )
