"""A file of the zoo is downloaded once and verified, however many processes ask for it at once.

What has been received so far lies beside the final name as ``NAME.part``.  The process that
downloads holds a lock on the empty file ``NAME.lock``, which the system releases however the
process ends.  The final name, or the folder that an archive is unpacked into, appears only when a
partial file has the right size and sha256.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ferplus_tvm.errors import DownloadError, MissingExtraError
from ferplus_tvm.zoo.archive import ArchiveError, unpack
from ferplus_tvm.zoo.models import ZooFile, ZooModel
from ferplus_tvm.zoo.registry import (
    CACHE_VARIABLE,
    is_intact,
    local_path,
    test_data_path,
    verify,
)

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
    _make(
        model,
        is_done=lambda: is_intact(model, path),
        finish=lambda partial: os.replace(partial, path),
        progress=progress,
    )
    return path


def fetch_test_data(model: ZooModel, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make sure that a zoo model's test data lie on this machine, and return their folder.

    They come in the zoo's archive, which also holds the model: `fetch` needs no network after
    this.  A folder that is there needs none either.

    Parameters
    ----------
    model, progress
        Those of `fetch`.

    Returns
    -------
    Path
        A folder beside the model's file, with a folder such as ``test_data_set_0`` for each set.

    Raises
    ------
    DownloadError
        If the model has no test data, no address gives the promised archive, or it cannot be
        unpacked or stored.
    MissingExtraError
        If the packages of the extra ``cli`` are not installed.
    """
    archive = model.archive
    if archive is None:
        raise DownloadError(
            f"there are no test data of the model {model.name!r}: fetch it without them, or take "
            "those of an official model"
        )
    folder = test_data_path(model)

    def is_done() -> bool:
        return any(folder.glob("test_data_set_*"))

    def finish(path: Path) -> None:
        try:
            unpack(path, folder, model, local_path(model))
        except ArchiveError as error:
            raise DownloadError(
                f"the archive {archive.file_name!r} {error}: fetch the model without its test data"
            ) from error

    _make(archive, is_done=is_done, finish=finish, progress=progress)
    return folder


def _make(
    file: ZooFile,
    *,
    is_done: Callable[[], bool],
    finish: Callable[[Path], None],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Download a file unless ``is_done``, and have ``finish`` make what is wanted of it.

    One process at a time does so; the others wait for it.  An archive may have been placed by
    hand.
    """
    path = local_path(file)
    report = progress or (lambda done, total: None)
    partial = path.with_name(path.name + ".part")

    def stop_waiting() -> bool:
        report(partial.stat().st_size if partial.exists() else 0, file.size)
        return False

    try:
        if is_done():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path).acquire(poll_interval=_POLL_SECONDS, cancel_check=stop_waiting):
            # Another process may have made it while this one waited.
            if not is_done():
                placed = is_intact(file, path)
                if not placed:
                    _download(file, path, partial, report)
                try:
                    finish(path if placed else partial)
                except DownloadError:
                    partial.unlink(missing_ok=True)
                    raise
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(
            f"{file.file_name!r} cannot be stored in {path.parent} ({error}): make room or "
            f"make it writable, or name another folder in the variable {CACHE_VARIABLE}"
        ) from error


def _lock(path: Path) -> FileLock:
    """Return the lock that whoever downloads ``path`` holds."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise MissingExtraError.of("fetching a model", "cli") from error
    # A soft lock, which filelock would fall back to, outlives a process that was killed.
    return FileLock(path.with_name(path.name + ".lock"), fallback_to_soft=False)


def _download(file: ZooFile, path: Path, partial: Path, progress: Progress) -> None:
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
            f"{file.file_name!r} cannot be fetched with the proxy or certificate settings of "
            f"the environment ({' '.join(str(error).split())}): correct them"
        ) from error
    failures: list[tuple[str, AddressError]] = []
    with client:
        for address in file.addresses:
            try:
                transfer.Transfer(client, file, address, partial, progress).run()
                return
            except transfer.AddressError as error:
                failures.append((address, error))
    raise DownloadError(_describe(file, path, failures)) from failures[-1][1]


def _describe(file: ZooFile, path: Path, failures: list[tuple[str, AddressError]]) -> str:
    """Return one sentence: what was tried, why it failed, and what the user can do."""
    if all(error.unreachable for _, error in failures):
        what = "there seems to be no network, since nobody answered"
    else:
        what = "no address gave the promised file"
    tried = "; ".join(f"{address}: {error}" for address, error in failures)
    return (
        f"{file.file_name!r} could not be fetched: {what} ({tried}); try again later, or place "
        f"the file of {file.size} bytes with sha256 {file.sha256} by hand as {path}"
    )
