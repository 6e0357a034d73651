"""The transfer of a file from one address, which resumes where an earlier one stopped.

The sha256 of the whole file is known.  So a partial file may be continued from any address and by
any later process; a mixture that turns out wrong is discarded and read again from the start.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx

from ferplus_tvm.zoo.models import ZooFile
from ferplus_tvm.zoo.registry import is_intact

Progress = Callable[[int, int], None]

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRIES = 5  # per address: the first, and resuming after a cut connection or a discarded partial
_CHUNK_BYTES = 16384  # of each write; more than a Git LFS pointer or the start of a page
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_PAGE_STARTS = (b"<!doctype html", b"<html")


class AddressError(Exception):
    """An address did not give the file; the text says why.

    Attributes
    ----------
    unreachable
        True if no server answered.
    """

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


class _CannotResume(Exception):
    """The server does not continue the partial file from where it ends."""


def _refuse_lost_tls(response: httpx.Response) -> None:
    """Refuse an answer if redirects led from TLS to plain text."""
    schemes = [each.url.scheme for each in (*response.history, response)]
    if "https" in schemes and schemes[-1] != "https":
        raise AddressError("redirects to an address without TLS")


class Transfer:
    """The transfer of one file from one address into a partial file.

    A partial file that is there already is continued.  After a failure it stays, if it may still
    be continued from here or from another address.
    """

    def __init__(
        self,
        client: httpx.Client,
        file: ZooFile,
        address: str,
        partial: Path,
        progress: Progress,
    ) -> None:
        self._client = client
        self._file = file
        self._address = address
        self._partial = partial
        self._progress = progress
        self._etag = ""  # strong validator of this address, once it has answered
        self._resume = True  # whether the next request asks for the rest only
        self._received = 0  # bytes that the current request brought

    def run(self) -> None:
        """Download until the partial file has the promised size and sha256.

        Raises
        ------
        AddressError
            If the address cannot be reached, or does not give the promised file.
        OSError
            If the partial file cannot be written.
        """
        failure = AddressError("did not give the file")
        for _ in range(_TRIES):
            begun_here = self._size() == 0
            try:
                if self._size() < self._file.size:
                    self._request()
            except _CannotResume:
                # The partial file stays until something better arrives: what stands at this
                # address may be a Git LFS pointer, which has no such range.
                self._resume = False
                continue
            except httpx.HTTPError as error:
                failure = _explain(error)
                if self._received:
                    continue
                raise failure from error
            except httpx.InvalidURL as error:
                raise AddressError(f"is not a web address: {error}") from error
            if self._size() < self._file.size:
                failure = AddressError(f"sent {self._size()} of {self._file.size} bytes")
                if self._received:
                    continue
                raise failure
            if is_intact(self._file, self._partial):
                self._progress(self._file.size, self._file.size)
                return
            self._partial.unlink()
            failure = AddressError("gave a file with another sha256")
            if begun_here:
                raise failure
        raise failure

    def _request(self) -> None:
        """Send one request, and write what it brings into the partial file."""
        self._received = 0
        start = self._size() if self._resume else 0
        # Compressed bytes could be neither counted nor continued.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self._etag:
                headers["If-Range"] = self._etag
        with self._client.stream("GET", self._address, headers=headers) as response:
            _refuse_lost_tls(response)
            status = response.status_code
            if start and (status == 416 or (status == 206 and not _continues(response, start))):
                raise _CannotResume
            if status == 200:
                start = 0
            elif not (start and status == 206):
                raise AddressError(f"answered HTTP {status} {response.reason_phrase}".rstrip())
            # RFC 9110, section 13.1.5: a weak validator must not be sent in If-Range.
            etag = response.headers.get("ETag", "")
            self._etag = "" if etag.startswith("W/") else etag
            chunks = response.iter_raw(_CHUNK_BYTES)
            first = next(chunks, b"")
            # Nothing that is here is overwritten before this looks like the right file.
            if start == 0:
                _refuse_other_content(first)
            length = response.headers.get("Content-Length")
            if length is not None and start + int(length) != self._file.size:
                raise AddressError(
                    f"offers {start + int(length)} bytes instead of {self._file.size}"
                )
            self._write(itertools.chain([first], chunks), start)

    def _write(self, chunks: Iterable[bytes], start: int) -> None:
        """Write the chunks at offset ``start``, never beyond the promised size."""
        size = self._file.size
        self._resume = True
        self._progress(start, size)
        with self._partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in chunks:
                if start + self._received + len(chunk) > size:
                    file.truncate(start)
                    raise AddressError(f"sends more than the {size} bytes of the file")
                file.write(chunk)
                file.flush()  # so that what was received survives a kill
                self._received += len(chunk)
                self._progress(start + self._received, size)

    def _size(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0


def _continues(response: httpx.Response, start: int) -> bool:
    """Return whether a 206 answer begins where it was asked to."""
    return bool(response.headers.get("Content-Range", "").startswith(f"bytes {start}-"))


def _refuse_other_content(head: bytes) -> None:
    """Refuse what servers send with status 200 in place of a file."""
    if head.startswith(_LFS_POINTER):
        raise AddressError("answered with a Git LFS pointer instead of the file")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_STARTS):
        raise AddressError("answered with a web page instead of the file")


def _explain(error: httpx.HTTPError) -> AddressError:
    """Return a transport error as one of an address."""
    reason = " ".join(str(error).split()) or type(error).__name__
    cause: BaseException | None = error
    refused_certificate = False
    while cause is not None:
        refused_certificate |= isinstance(cause, ssl.SSLError)
        cause = cause.__cause__ or cause.__context__
    unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return AddressError(reason, unreachable=unreachable and not refused_certificate)
