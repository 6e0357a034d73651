"""A zoo model is downloaded once and verified, however many processes ask for it at the same time.

What has been received so far lies beside the final name as ``NAME.part``.  The process that
downloads holds a lock on the empty file ``NAME.lock``, which the system releases however the
process ends.  The final name appears only when a partial file is renamed whose size and sha256 are
right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ferplus_tvm.errors import DownloadError, MissingExtraError
from ferplus_tvm.zoo.registry import CACHE_VARIABLE, ZooModel, is_intact, local_path, verify

if TYPE_CHECKING:
    from filelock import FileLock

    from ferplus_tvm.zoo.transfer import AddressError, Progress

_POLL_SECONDS = 0.2


def fetch(model: ZooModel, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make sure that a zoo model lies on this machine, and return its path.

    The bundled model, and a file that is there and intact, need no network.  Otherwise the
    addresses are tried in order.  A download that was cut is resumed, in this call and in later
    ones.  A second caller waits for the first one.

    Parameters
    ----------
    model
        An entry of the registry, as `ferplus_tvm.zoo.lookup` returns it.
    progress
        Called with the number of bytes that are here and the size of the file.  The first number
        starts above zero where a download is resumed, and falls where it has to start again.  It is
        called while another process downloads the file, too, about five times a second.

    Returns
    -------
    Path
        The verified file.

    Raises
    ------
    DownloadError
        If no address gives the promised file, or it cannot be stored.
    MissingExtraError
        If the packages of the extra ``cli`` are not installed.
    """
    if not model.addresses:
        return verify(model)
    path = local_path(model)
    report = progress or (lambda done, total: None)
    partial = path.with_name(path.name + ".part")

    def stop_waiting() -> bool:
        report(partial.stat().st_size if partial.exists() else 0, model.size)
        return False

    try:
        if is_intact(model, path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path).acquire(poll_interval=_POLL_SECONDS, cancel_check=stop_waiting):
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


def _lock(path: Path) -> FileLock:
    """Return the lock that whoever downloads ``path`` holds."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise MissingExtraError.of("fetching a model", "cli") from error
    # A soft lock, which filelock would fall back to, outlives a process that was killed.
    return FileLock(path.with_name(path.name + ".lock"), fallback_to_soft=False)


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
    """Return one sentence: what was tried, why it failed, and what the user can do."""
    if all(error.unreachable for _, error in failures):
        what = "there seems to be no network, since nobody answered"
    else:
        what = "no address gave the promised file"
    tried = "; ".join(f"{address}: {error}" for address, error in failures)
    return (
        f"model {model.name!r} could not be fetched: {what} ({tried}); try again later, or place "
        f"the file of {model.size} bytes with sha256 {model.sha256} by hand as {path}"
    )
