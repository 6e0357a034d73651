"""What bytes are, by how they begin: encoded pictures, and what people send in their place."""

from __future__ import annotations

import base64
import re

# ISO base media files (HEIF and MP4 alike) name their brands after "ftyp" in the first box.
_HEIF = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"mif2"})
_AVIF = frozenset({b"avif", b"avis"})
_VIDEO = frozenset({b"iso", b"mp4", b"qt ", b"M4V", b"3gp", b"avc", b"das", b"MSN"})

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x1aE\xdf\xa3", "WebM or Matroska video"),
    (b"\x93NUMPY", "NPY"),
    (b"\0\x05\x16\x07", "AppleDouble"),
    (b"version https://git-lfs", "Git LFS pointer"),
)

_BASE64 = re.compile(rb"(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])[A-Za-z0-9+/\r\n]+=*\s*", re.DOTALL)
_URLSAFE = re.compile(rb"[A-Za-z0-9_\r\n-]+=*")
_HEXADECIMAL = re.compile(rb"(0x|\\x)?[0-9a-fA-F]{2}(([\s:]|\\x)?[0-9a-fA-F]{2}){7,}")

# Sixteen numbers, perhaps below the names of the columns.
_NUMBERS = re.compile(rb"([A-Za-z_,; ]+\r?\n)?[\[\s\"']*[\d.]+([\s,;\"'\]\[]+[\d.]+){15}")


_FROM_URLSAFE = bytes.maketrans(b"-_", b"+/")


def format_of(head: bytes) -> str | None:
    """Name the format of what begins with these bytes; None if it is not one of those known here.

    Parameters
    ----------
    head
        The first 64 bytes or more.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:4] == b"RIFF":
        return "AVI video" if head[8:11] == b"AVI" else "RIFF"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in range(8, min(len(head), 64), 4)}
        if brands & _AVIF:
            return "AVIF"
        if brands & _HEIF:
            return "HEIC"
        return "MP4 video" if head[8:11] in _VIDEO else None
    return None


def text_format_of(head: bytes) -> str | None:
    """Name the kind of text that begins with these bytes; None if it is none known here.

    Parameters
    ----------
    head
        The first kilobyte, or all.
    """
    text = head[:1000].removeprefix(b"\xef\xbb\xbf").strip()
    lower = text.lower()
    if lower.startswith(b"data:"):
        return "a data URI"
    if lower.startswith((b"http://", b"https://")):
        return "an address"
    if b"<svg" in lower and lower.startswith(b"<"):
        return "SVG"
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if lower.startswith(b"<"):
        return "XML or HTML"
    if lower.startswith((b'{"', b"{'", b"{\n", b"{ ", b'["', b"[{")) or lower in (b"{}", b"[]"):
        return "JSON"
    if _NUMBERS.match(text):
        return "numbers as text"
    if re.match(rb"b['\"]", text):
        return "the text of Python bytes"
    if re.match(rb"\[['\"]", text):
        return "the text of a list"
    if hexadecimal := _HEXADECIMAL.match(text):
        digits = re.sub(rb"[\s:]|0x|\\x", b"", hexadecimal.group())
        if format_of(bytes.fromhex(digits.decode())):
            return "hexadecimal text"
    text = text.strip(b"'\"")
    if _BASE64.fullmatch(text) and (len(text) >= 100 or format_of(_decoded(text))):
        return "base64 text"
    if _URLSAFE.fullmatch(text) and format_of(_decoded(text.translate(_FROM_URLSAFE))):
        return "URL-safe base64 text"
    return None


def _decoded(text: bytes) -> bytes:
    """Decode base64, as far as it is whole."""
    text = b"".join(text.split()).rstrip(b"=")
    return base64.b64decode(text[: len(text) // 4 * 4])
